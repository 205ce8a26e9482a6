"""The miniature's VAE: what its encoder says of the variance, which no loss looks at."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from pocketxl.export.miniature.autoencoder import LATENT_NOISE, autoencoder, settle_variance

from ...fixtures.painters import landscape

WEIGHTS = Path(__file__).resolve().parents[3] / "export/miniature/weights"


def posterior(vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.tensor(np.asarray(landscape(64, 64))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        found = vae.encode(pixels).latent_dist
    return found.mean, found.std


def test_the_variance_becomes_that_of_the_noise_in_training_and_the_mean_stays() -> None:
    vae = autoencoder(32).eval()
    before, _ = posterior(vae)
    settle_variance(vae)
    after, deviation = posterior(vae)
    assert torch.equal(before, after)
    assert torch.allclose(deviation, torch.tensor(LATENT_NOISE), rtol=1e-6)


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_the_shipped_ones_say_it_too(kind: str) -> None:
    vae = AutoencoderKL.from_pretrained(WEIGHTS / kind / "vae").float()
    _, deviation = posterior(vae)
    assert deviation.max() == pytest.approx(LATENT_NOISE, rel=2e-3)  # 2 log of it is rounded to float16
    assert math.isclose(deviation.min(), deviation.max())
