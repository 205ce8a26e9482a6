"""Formats are values: what they can say, how they are called, how many bytes they take."""

import pytest

from pocketxl.export.quantize.formats import (
    FLOAT16,
    FLOAT32,
    KEEP,
    W4_HALVES,
    W8,
    W8A8_DYNAMIC,
    W8A8_SIGNED,
    W8A8_SIGNED_CHANNEL,
    W8A8_STATIC,
    Activation,
    Format,
    Weight,
)

INT4_GROUPS = Format(weight=Weight(bits=4, granularity="group", group=64))
FP8 = Format(
    weight=Weight(bits=8, kind="float", granularity="tensor"),
    activation=Activation(bits=8, kind="float", range="static"),
)
TOKENS = Format(weight=Weight(bits=8), activation=Activation(bits=8, range="dynamic", granularity="token"))


@pytest.mark.parametrize(
    ("format", "name"),
    [
        (KEEP, "keep"),
        (FLOAT16, "wf16"),
        (W8, "w8"),
        (W8A8_DYNAMIC, "w8a8_dynamic"),
        (W8A8_STATIC, "w8a8_static_channel"),
        (INT4_GROUPS, "w4_g64"),
        (FP8, "wf8_tensoraf8_static"),
        (TOKENS, "w8a8_dynamic_token"),
    ],
)
def test_names(format: Format, name: str) -> None:
    assert str(format) == name


def test_equal_values_are_the_same_format() -> None:
    assert Format(weight=Weight(bits=8)) == W8
    assert len({W8, Format(weight=Weight(bits=8)), TOKENS, W8A8_DYNAMIC}) == 3


def test_what_is_quantized_and_what_is_calibrated() -> None:
    formats = (KEEP, FLOAT32, FLOAT16, W8, W8A8_DYNAMIC, W8A8_STATIC, INT4_GROUPS, FP8)
    assert [f.quantized for f in formats] == [False] * 3 + [True] * 5
    assert [f for f in formats if f.static] == [W8A8_STATIC, FP8]
    assert [f for f in (*formats, W8A8_SIGNED) if f.ranged] == [W8A8_STATIC]
    assert str(W8A8_SIGNED) == "w8a8_static_signed" != str(W8A8_SIGNED_CHANNEL), (
        "the manifest's names of formats are all different"
    )


@pytest.mark.parametrize(
    ("format", "size"),
    [
        (FLOAT32, 4 * 6400),
        (FLOAT16, 2 * 6400),
        (W4_HALVES, 3200 + 2 * 100),
        (W8, 6400 + 4 * 10),
        (INT4_GROUPS, 3200 + 4 * 100),
        (FP8, 6400 + 4),
    ],
)
def test_bytes_of_numbers_and_scales(format: Format, size: int) -> None:
    assert format.weight is not None
    assert format.weight.bytes_of((10, 640)) == size


def test_senseless_values_are_refused() -> None:
    with pytest.raises(ValueError, match="group is None; a size of groups goes with"):
        Weight(bits=4, granularity="group")
    with pytest.raises(ValueError, match="granularity is 'channel' and group is 64"):
        Weight(bits=4, group=64)
    with pytest.raises(ValueError, match="bits is 1"):
        Weight(bits=1)
    with pytest.raises(ValueError, match="a8_static has no weight"):
        Format(activation=Activation(bits=8, range="static"))
