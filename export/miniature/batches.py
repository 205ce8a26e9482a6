"""Batches for a step: which samples, at which noise levels, with which captions dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .latents import SHARES, Bucket
from .noise import LevelShares, add_noise, alphas_cumprod, stratified_timesteps

CAPTION_DROPOUT = 0.1
CROPPED_COUNT = 2.5  # as many times are windows drawn as others: crop ids are the last condition to be learned


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's batch; all samples come from one bucket. `dropped` marks those that are to see no caption."""

    noisy: Tensor
    noise: Tensor
    timesteps: Tensor
    alpha_bar: Tensor
    time_ids: Tensor
    scores: Tensor
    tokens: Tensor
    tokens_2: Tensor
    dropped: Tensor


def draw_batch(
    buckets: Sequence[Bucket],
    size: int,
    levels: LevelShares,
    generator: torch.Generator,
    device: torch.device,
    dropout: float = CAPTION_DROPOUT,
) -> Batch:
    """Draw a batch that spreads over the noise levels as `levels` says; everything random comes from `generator`."""
    bucket = buckets[int(torch.multinomial(torch.tensor(SHARES), 1, generator=generator))]
    rows = torch.multinomial(_emphasis(bucket.time_ids), size, replacement=True, generator=generator)
    latents = bucket.latents[rows].float()
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = stratified_timesteps(size, levels, generator)
    alpha_bar = alphas_cumprod()[timesteps]
    noisy = add_noise(latents, noise, alpha_bar)
    return Batch(
        noisy=noisy.to(device, memory_format=torch.channels_last),
        noise=noise.to(device),
        timesteps=timesteps.to(device),
        alpha_bar=alpha_bar.to(device),
        time_ids=bucket.time_ids[rows].to(device),
        scores=bucket.scores[rows].to(device),
        tokens=bucket.tokens[rows].long().to(device),
        tokens_2=bucket.tokens_2[rows].long().to(device),
        dropped=(torch.rand(size, generator=generator) < dropout).to(device),
    )


def _emphasis(time_ids: Tensor) -> Tensor:
    cropped = (time_ids[:, 2:4] != 0).any(1)
    return 1 + cropped * (CROPPED_COUNT - 1)
