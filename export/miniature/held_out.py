"""Figures that need the models' insides: VAE reconstruction, and noise prediction of base and refiner."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from torch import nn

from . import measures
from .base import predict_base
from .batches import draw_batch
from .compose import Painter, buckets, draw_composition
from .evaluate import SEED, Record
from .latents import Bucket, encode, to_unit
from .noise import Levels
from .refiner import predict_refiner
from .text import tokenize
from .trainer import step_generator

LAST_FIFTH: Final[Levels] = ((0.0, 0), (1.0, 200))


@torch.no_grad()
def vae_psnr(vae: AutoencoderKL, painter: Painter, names: Sequence[str], resolution: int, count: int = 128) -> Record:
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
    return Record(case="vae_held_out", metric="psnr_db", value=float(np.concatenate(values).mean()), unit="dB")


@torch.no_grad()
def noise_prediction(
    base: StableDiffusionXLPipeline,
    refiner: StableDiffusionXLImg2ImgPipeline,
    data: Sequence[Bucket],
    batches: int = 16,
    batch: int = 64,
) -> list[Record]:
    """Mean squared error of the predicted noise on the last fifth of the noise levels, by base and refiner."""
    modules = nn.ModuleDict(
        {"unet": base.unet, "text_encoder": base.text_encoder, "text_encoder_2": base.text_encoder_2}
    )
    fine = nn.ModuleDict({"unet": refiner.unet})
    empty = tokenize(refiner.tokenizer_2, [""])[0].long().to(base.device)
    errors: dict[str, list[float]] = {"base": [], "refiner": []}
    for index in range(batches):
        drawn = draw_batch(data, batch, LAST_FIFTH, step_generator(SEED, index), base.device, dropout=0.0)
        first = predict_base(modules, drawn)
        second = predict_refiner(fine, refiner.text_encoder_2, empty, drawn)
        errors["base"].append(float((first.float() - drawn.noise).square().mean()))
        errors["refiner"].append(float((second.float() - drawn.noise).square().mean()))
    return [
        Record(case=f"{name}_noise_last_fifth", metric="mean_squared_error", value=float(np.mean(values)), unit="1")
        for name, values in errors.items()
    ]
