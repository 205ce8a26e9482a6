"""A program at a picture's sizes: what its symbols become, and what does not fit the kernels."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import IncompatibleError, IntegrityError, PocketXLError, RequestError
from pocketxl.engine.program.calls import resolve
from pocketxl.engine.program.program import Operand, Program, ValueSpec
from pocketxl.engine.program.sizes import Sizes
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.linear.plan import plan_linear_w8a8

from ...fixtures.small_programs import small_program

ARCH = architecture(89)
PROGRAM, _ = small_program()
SIZES = Sizes(batch=2, height=5, width=3, tokens=154)


def test_symbols_become_numbers_and_other_words_stay() -> None:
    calls = {planned.call.layer: planned.plan for planned in resolve(PROGRAM, SIZES, ARCH).calls}
    assert calls["layer.6"] == plan_linear_w8a8(m=30, n=192, k=64, arch=ARCH)
    assert calls["layer.12"].inputs["k"].shape == (2, 154, 64)
    assert calls["layer.21"].outputs["out"].shape == (2, 5, 3, 64)  # from 3 x 2, to an odd height and width
    words = replace(PROGRAM.calls[6], shape={**PROGRAM.calls[6].shape, "dtype": "int8"})
    assert resolve(with_call(6, words), SIZES, ARCH).calls[6].plan == calls["layer.6"]


def test_values_have_the_bytes_of_their_buffers() -> None:
    resolved = resolve(PROGRAM, SIZES, ARCH)
    assert resolved.values["latents"] == 2 * 4 * 5 * 3 * 4
    assert resolved.values["x"] == 2 * 5 * 3 * 32 * 2
    assert resolved.values["q.2"] == 30 * 64
    assert resolved.values["s.2"] == 30 * 4
    assert set(resolved.inputs) == {"latents", "time.0", "time.1", "key", "value"}


def test_equal_calls_share_a_plan() -> None:
    calls = resolve(PROGRAM, SIZES, ARCH).calls
    assert calls[8].plan is calls[13].plan


def with_call(index: int, call: Any) -> Program:
    calls = list(PROGRAM.calls)
    calls[index] = call
    return replace(PROGRAM, calls=tuple(calls))


def changed(index: int, **changes: Any) -> Program:
    return with_call(index, replace(PROGRAM.calls[index], **changes))


ONE_PIXEL = ValueSpec(name="u", shape=("batch", 1, 1, 1))
LINEAR, ATTENTION = PROGRAM.calls[6], PROGRAM.calls[7]
WRONG: list[tuple[Program, type[PocketXLError], str]] = [
    (changed(6, shape={**LINEAR.shape, "k": 40}), RequestError, r"layer\.6: linear_w8a8 cannot take.*choose another"),
    (changed(6, shape={**LINEAR.shape, "speed": 2}), IncompatibleError, r"layer\.6: linear_w8a8 does not take"),
    (changed(6, shape={**LINEAR.shape, "m": ("speed",)}), IncompatibleError, r"layer\.6: linear_w8a8 does not take"),
    (changed(6, shape={**LINEAR.shape, "bias": False}), IncompatibleError, r"layer\.6: linear_w8a8 reads"),
    (changed(6, outputs={"y": "qkv"}), IncompatibleError, r"layer\.6: linear_w8a8 reads .* and makes \['out'\]"),
    (changed(6, shape={**LINEAR.shape, "m": 31}), IntegrityError, r"layer\.6: x of linear_w8a8 reaches beyond"),
    (changed(6, inputs={**LINEAR.inputs, "x": Operand(name="h.1")}), IntegrityError, "x of linear_w8a8 is int8, h.1"),
    (
        changed(7, inputs={**ATTENTION.inputs, "v": Operand(name="qkv", offset=129)}),
        IntegrityError,
        r"layer\.7: v of attention reaches beyond",
    ),
    (
        replace(PROGRAM, outputs=(replace(PROGRAM.outputs[0], values=(ONE_PIXEL,)),)),
        IntegrityError,
        "the output prediction is",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("program", "error", "says"), WRONG)
def test_what_does_not_fit_the_kernels_is_named(program: Program, error: type[PocketXLError], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve(program, SIZES, ARCH)


OPTION = st.one_of(
    st.integers(-2, 200),
    st.floats(allow_nan=False),
    st.none(),
    st.booleans(),
    st.sampled_from(["batch", "rows0", "height-1", "pixels9", "tokens", "int8", "float8_e4m3fn", "float64", ""]),
    st.lists(st.sampled_from(["height0", "none"]), max_size=2).map(tuple),
)


@given(st.integers(0, len(PROGRAM.calls) - 1), st.data())
def test_any_other_option_fits_or_is_refused(index: int, data: st.DataObject) -> None:
    shape = dict(PROGRAM.calls[index].shape)
    shape[data.draw(st.sampled_from(sorted(shape)))] = data.draw(OPTION)
    try:
        resolved = resolve(changed(index, shape=shape), SIZES, ARCH)
    except (IncompatibleError, IntegrityError, RequestError):
        return
    assert len(resolved.calls) == len(PROGRAM.calls)
