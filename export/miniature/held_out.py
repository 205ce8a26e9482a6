"""Figures that need the models' insides: VAE reconstruction, and noise prediction of base and refiner."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from . import measures
from .batches import Batch, draw_batch
from .compose import Painter, buckets, draw_composition
from .evaluate import SEED, Figure
from .latents import Bucket, encode, to_unit
from .noise import LevelShares
from .refiner import predict_refiner
from .sdxl_base import predict_base
from .text import tokenize
from .trainer import step_generator

LAST_FIFTH: Final[LevelShares] = ((0.0, 0), (1.0, 200))
BAND: Final = 50


@torch.no_grad()
def vae_psnr(vae: AutoencoderKL, painter: Painter, names: Sequence[str], resolution: int, count: int = 128) -> Figure:
    """Mean PSNR of reconstructions of compositions that no stage was trained on."""
    rng = random.Random(f"held out {SEED}")
    values = []
    size = buckets(resolution)[0]
    for _ in range(count // 32):
        pixels = np.stack([painter.paint(draw_composition(names, rng, size)) for _ in range(32)])
        pictures = to_unit(pixels).to(vae.device, vae.dtype)
        decoded = vae.decode(encode(vae, pictures) / vae.config.scaling_factor).sample
        unit = (decoded.float().clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()
        values.append(measures.psnr_db(unit, np.asarray(pixels, np.float32) / np.float32(255)))
    return Figure(case="vae_held_out", metric="psnr_db", value=float(np.concatenate(values).mean()), unit="dB")


@torch.no_grad()
def noise_prediction(
    base: StableDiffusionXLPipeline,
    refiner: StableDiffusionXLImg2ImgPipeline,
    data: Sequence[Bucket],
    batches: int = 16,
    batch: int = 64,
) -> list[Figure]:
    """Mean squared error of the predicted noise on the last fifth of the noise levels, by base and refiner.

    Over all its levels, and over bands of `BAND` timesteps: those nearest to the picture have most of the error.
    """
    modules = nn.ModuleDict(
        {"unet": base.unet, "text_encoder": base.text_encoder, "text_encoder_2": base.text_encoder_2}
    )
    fine = nn.ModuleDict({"unet": refiner.unet})
    empty = tokenize(refiner.tokenizer_2, [""])[0].long().to(base.device)
    systems: dict[str, Callable[[Batch], Tensor]] = {
        "base": lambda drawn: predict_base(modules, drawn),
        "refiner": lambda drawn: predict_refiner(fine, refiner.text_encoder_2, empty, drawn),
    }
    errors: dict[str, list[Tensor]] = {name: [] for name in systems}
    timesteps = []
    for index in range(batches):
        drawn = draw_batch(data, batch, LAST_FIFTH, step_generator(SEED, index), base.device, dropout=0.0)
        timesteps.append(drawn.timesteps.cpu())
        for name, predict in systems.items():
            errors[name].append((predict(drawn).float() - drawn.noise).square().mean((1, 2, 3)).cpu())
    levels = torch.cat(timesteps)
    records = []
    for name, values in errors.items():
        all_levels = torch.cat(values)
        records.append(_error(f"{name}_noise_last_fifth", all_levels))
        for low in range(0, LAST_FIFTH[-1][1], BAND):
            inside = (levels >= low) & (levels < low + BAND)
            records.append(_error(f"{name}_noise_{low}_to_{low + BAND - 1}", all_levels[inside]))
    return records


def _error(case: str, errors: Tensor) -> Figure:
    return Figure(case=case, metric="mean_squared_error", value=float(errors.mean()), unit="1")
