"""Static ranges by least error: never worse than extremes on the samples, far better where extremes are rare."""

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from pocketxl.export.quantize.formats import W8A8_STATIC, Activation
from pocketxl.export.quantize.input_rounding import round_inputs
from pocketxl.export.quantize.static_ranges import fit_static

Floats = NDArray[np.float32]


def lost_per_channel(samples: Floats, scale: Floats, zero: int) -> Floats:
    assert W8A8_STATIC.activation is not None
    kept = round_inputs(samples, W8A8_STATIC.activation, scale=scale, zero=zero)
    errors: Floats = np.square(kept - samples).sum(0)
    return errors


def silu(x: Floats) -> Floats:
    result: Floats = (x * scipy.special.expit(x)).astype(np.float32)
    return result


def test_after_silu_each_channel_has_its_own_scale_and_zero_is_exact() -> None:
    rng = np.random.default_rng(0)
    samples = silu(rng.standard_normal((400, 32)).astype(np.float32) * np.geomspace(0.5, 30, 32, dtype=np.float32))
    scale, zero = fit_static(samples, samples.min(0), samples.max(0))
    assert scale.shape == (32,)
    assert scale.dtype == np.float32
    assert 0 <= zero <= 255
    together = round_inputs(samples, Activation(bits=8, range="dynamic"))
    # One range for all gives every channel the steps of the widest.
    assert lost_per_channel(samples, scale, zero).sum() < 0.2 * np.square(together - samples).sum()
    assert (lost_per_channel(np.zeros_like(samples), scale, zero) == 0).all()


def test_the_zero_point_is_as_good_as_any_other() -> None:
    rng = np.random.default_rng(1)
    samples = (rng.standard_normal((300, 8)) + np.arange(8)).astype(np.float32)
    low, high = samples.min(0), samples.max(0)
    scale, zero = fit_static(samples, low, high)
    ours = lost_per_channel(samples, scale, zero).sum()
    for other in range(1, 255):
        extremes = np.maximum(np.maximum(high, 0) / (255 - other), np.maximum(-low, 0) / other).astype(np.float32)
        assert ours <= 1.02 * lost_per_channel(samples, extremes, other).sum()


def test_channels_of_one_sign_and_of_zeros() -> None:
    samples = np.stack([np.linspace(0, 8, 50), np.zeros(50)], 1).astype(np.float32)
    scale, zero = fit_static(samples, samples.min(0), samples.max(0))
    assert zero == 0
    assert scale[0] == pytest.approx(8 / 255)
    assert scale[1] == scale[0], "a scale that does not swell the weights that it goes into"
    scale, zero = fit_static(-samples, -samples.max(0), -samples.min(0))
    assert zero == 255
    assert fit_static(np.zeros((3, 2), np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32))[0].tolist() == [
        1,
        1,
    ]


def test_importance_decides_whose_steps_are_fine() -> None:
    samples = np.stack([np.linspace(-1, 0, 99), np.linspace(0, 1, 99)], 1).astype(np.float32)
    low, high = samples.min(0), samples.max(0)
    balanced = fit_static(samples, low, high)[1]
    assert fit_static(samples, low, high, importance=np.array([99, 1], np.float32))[1] > balanced + 20
    with pytest.raises(ValueError, match="give one a channel"):
        fit_static(samples, low[:1], high)
