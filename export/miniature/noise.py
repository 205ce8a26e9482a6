"""The forward process: SDXL's schedule, and the weight of each noise level in the loss."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

STEPS = 1000

# How a batch spreads over the noise levels: corners (share of the batch, timestep below which that share lies).
LevelShares = tuple[tuple[float, int], ...]
EVEN: Final[LevelShares] = ((0.0, 0), (1.0, STEPS))


def alphas_cumprod() -> Tensor:
    """Signal power left at each of the 1000 timesteps, float32 (scaled-linear betas, as in latent diffusion)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Latents at a noise level: `sqrt(a) x + sqrt(1 - a) e`, `alpha_bar` of shape (batch,)."""
    power = alpha_bar.view(-1, 1, 1, 1)
    return power.sqrt() * latents + (1 - power).sqrt() * noise


def min_snr_weight(alpha_bar: Tensor, gamma: float = 5.0) -> Tensor:
    """Loss weight of an epsilon prediction: `min(snr, gamma) / snr`.

    From Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
    """
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / snr


def noise_ratio(alpha_bar: Tensor) -> Tensor:
    """Standard deviation of the noise over that of the signal: `1 / sqrt(snr)`."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def stratified_timesteps(batch: int, levels: LevelShares, generator: torch.Generator) -> Tensor:
    """One timestep from each of `batch` equal shares of the levels: the loss varies less than with free draws."""
    places = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    shares, corners = zip(*levels, strict=True)
    timesteps = torch.from_numpy(np.interp(places.numpy(), shares, corners)).long()
    return timesteps.clamp(corners[0], corners[-1] - 1)
