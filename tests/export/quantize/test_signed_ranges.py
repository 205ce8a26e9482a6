"""Ranges of inputs as int8 around 0: one for all channels, unless scales for channels gain much; room for more."""

import numpy as np
import pytest

from pocketxl.export.quantize.formats import W8A8_SIGNED, W8A8_SIGNED_CHANNEL
from pocketxl.export.quantize.signed_ranges import fit_signed, signed_error

from .inputs import Floats, normal
from .test_ranges import convolution, run, runs

NAME = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
"""Behind a norm."""


def linear(spread: Floats, rows: int = 128) -> tuple[Floats, Floats]:
    """Weight `[24, in]`, which counts every channel alike, and inputs whose channels have these sizes."""
    return normal(24, len(spread)) / spread, normal(rows, len(spread), seed=1) * spread


def test_channels_that_are_alike_have_one_range_that_holds_them() -> None:
    weight, inputs = linear(np.ones(64, np.float32))
    seen = run(weight, inputs[:, :, None])
    found = fit_signed(NAME, weight, seen, W8A8_SIGNED)
    assert np.ptp(found) == 0, "no product is needed to tell channels apart"
    assert float(found[0]) == pytest.approx(np.abs(inputs).max() / 127, rel=1e-5)
    assert signed_error(weight, seen, found, W8A8_SIGNED) < 0.02**2


def test_channels_that_differ_much_have_scales_of_their_own_and_lose_no_more() -> None:
    spread = np.geomspace(1, 100, 64).astype(np.float32)
    weight, inputs = linear(spread)
    seen = run(weight, inputs[:, :, None])
    found = fit_signed(NAME, weight, seen, W8A8_SIGNED_CHANNEL)
    assert found[-1] > 10 * found[0]
    assert (np.abs(inputs) <= 127.5 * found).all()
    tame, calm = linear(np.ones(64, np.float32))
    alike = run(tame, calm[:, :, None])
    assert signed_error(weight, seen, found, W8A8_SIGNED) < 1.5 * signed_error(
        tame, alike, fit_signed(NAME, tame, alike, W8A8_SIGNED_CHANNEL), W8A8_SIGNED
    )


def test_a_convolution_s_channels_have_a_scale_for_all_of_a_patch() -> None:
    weight, seen = convolution(np.ones(8, np.float32))
    assert fit_signed(NAME, weight, seen, W8A8_SIGNED_CHANNEL).shape == (8,)


def test_a_run_beyond_the_others_gives_room_for_the_next() -> None:
    def scale(*sizes: float) -> float:
        weight, seen = runs(*sizes)
        found, alone = (fit_signed(NAME, weight, shown, W8A8_SIGNED_CHANNEL) for shown in (seen, seen + seen))
        return float(found[0] / alone[0])

    assert scale(1, 1, 1, 1) == 1
    assert scale(1, 1.8, 1, 1) > 1.1


def test_a_layer_that_has_only_seen_zeros_has_a_range() -> None:
    weight = normal(24, 16)
    found = fit_signed(NAME, weight, run(weight, np.zeros((8, 16, 1), np.float32)), W8A8_SIGNED_CHANNEL)
    assert (found > 0).all()
    assert np.isfinite(found).all()


def test_one_range_costs_no_time_and_scales_for_channels_are_a_format_but_where_they_are_free() -> None:
    weight, inputs = linear(np.geomspace(1, 100, 64).astype(np.float32))
    seen = run(weight, inputs[:, :, None])
    assert np.ptp(fit_signed(NAME, weight, seen, W8A8_SIGNED)) == 0
    assert np.ptp(fit_signed(NAME, weight, seen, W8A8_SIGNED_CHANNEL)) > 0
    for name in (
        "attentions.0.transformer_blocks.0.ff.net.2",
        "attentions.0.proj_out",
        "up_blocks.0.upsamplers.0.conv",
    ):
        assert np.ptp(fit_signed(name, weight, seen, W8A8_SIGNED)) > 0
