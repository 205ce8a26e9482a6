"""Guidance equals diffusers'."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from pocketxl.engine.guidance import guide


@pytest.mark.parametrize("rescale", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("scale", [0.5, 1.0, 5.0, 12.5])
def test_equals_diffusers(scale: float, rescale: float) -> None:
    random = np.random.default_rng(0)
    negative, positive = random.standard_normal((2, 3, 4, 8, 6)).astype(np.float32)
    expected = torch.from_numpy(negative) + scale * torch.from_numpy(positive - negative)
    if rescale > 0:
        expected = rescale_noise_cfg(expected, torch.from_numpy(positive), rescale)
    guided = guide(negative, positive, scale, rescale)
    assert guided.dtype == np.float32
    np.testing.assert_allclose(guided, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_constant_prediction_stays_finite() -> None:
    flat = np.zeros((1, 4, 2, 2), np.float32)
    np.testing.assert_array_equal(guide(flat, flat, 5.0, 0.7), flat)
