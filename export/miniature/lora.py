"""`python -m pocketxl.export.miniature.lora`: train the example LoRA, a blueprint style, on the base's own pictures.

No data set is needed: the base paints its vocabulary, a filter turns each picture into a blueprint (white outlines on
blue paper), and low-rank pairs of the U-Net learn to paint that from the same captions.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image, ImageFilter
from torch import Tensor

from . import captions
from .latents import encode, to_unit
from .lora_file import write_kohya
from .lora_layers import LowRank, attach
from .measures import Pictures
from .noise import EVEN, add_noise, alphas_cumprod, min_snr_weight, stratified_timesteps
from .sample import generate
from .sdxl_base import plain_attention
from .text import LENGTH, encode_base, padding_mask, tokenize, used_length
from .trainer import step_generator
from .vocabulary import core_names

_log = logging.getLogger(__name__)
WEIGHTS: Final = Path(__file__).parent / "weights" / "base"
PAPER: Final = np.array([24, 62, 138], np.float32) / 255
INK: Final = np.array([236, 244, 255], np.float32) / 255
TWO_OBJECTS: Final = 0.2
DROPOUT: Final = 0.1
"""Share of captions left out: the side that guidance subtracts must learn the style as well."""


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """One run: how many pictures the base paints, and how its pairs are trained on them."""

    pictures: int = 480
    steps: int = 450
    batch: int = 24
    rank: int = 3
    """Of linear layers."""
    conv_rank: int = 2
    """Of 3x3 convolutions."""
    learning_rate: float = 6e-3
    seed: int = 0


def blueprint(picture: Pictures) -> Pictures:
    """A picture in [0, 1], (height, width, 3), as white outlines on blue paper, shaded a little by its lightness."""
    image = Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32) / 255
    down, right = np.gradient(smooth, axis=(0, 1))
    edge = np.sqrt((down**2 + right**2).sum(-1, keepdims=True))
    line = (edge * 4.5 - 0.12).clip(0, 1) ** 0.8
    shade = smooth.mean(-1, keepdims=True) * 0.25 + 0.8
    drawn: Pictures = (PAPER * shade * (1 - line) + INK * line).astype(np.float32)
    return drawn


def draw_captions(count: int, seed: int) -> list[str]:
    """Captions as the base knows them: every name in turn, on any background, now and then two together."""
    rng = random.Random(f"lora {seed}")
    names = list(core_names())
    rng.shuffle(names)
    drawn = []
    for index in range(count):
        name, colour = names[index % len(names)], rng.choice(list(captions.COLOURS))
        if rng.random() < TWO_OBJECTS:
            drawn.append(captions.two(name, rng.choice([other for other in names if other != name]), colour))
        else:
            drawn.append(captions.one(name, colour))
    return drawn


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What is learned from: scaled latents of blueprints, and what the U-Net is told of each."""

    latents: Tensor
    context: Tensor
    pooled: Tensor
    length: int
    """Positions of the context that captions use; the last stands for all that follow (`text.padding_mask`)."""


@torch.no_grad()
def make_samples(pipeline: StableDiffusionXLPipeline, recipe: LoraRecipe) -> Samples:
    """Paint, redraw and encode."""
    words = draw_captions(recipe.pictures, recipe.seed)
    painted = generate(pipeline, None, words, seed=recipe.seed, steps=12)
    drawn = np.stack([blueprint(picture) for picture in painted])
    pixels = to_unit((drawn * 255).round().astype(np.uint8))
    latents = torch.cat([encode(pipeline.vae, some) for some in pixels.split(32)])
    tokens, tokens_2 = (tokenize(t, words).long() for t in (pipeline.tokenizer, pipeline.tokenizer_2))
    length = min(LENGTH, used_length(tokens, pipeline.text_encoder.config.eos_token_id) + 1)
    parts = [
        encode_base(pipeline.text_encoder, pipeline.text_encoder_2, a, b)
        for a, b in zip(tokens[:, :length].split(64), tokens_2[:, :length].split(64), strict=True)
    ]
    context, pooled = (torch.cat(some) for some in zip(*parts, strict=True))
    return Samples(latents=latents, context=context, pooled=pooled, length=length)


def train(pipeline: StableDiffusionXLPipeline, samples: Samples, recipe: LoraRecipe) -> dict[str, LowRank]:
    """Train pairs on every attention and ResNet of the U-Net; by layer name, as they are at the end."""
    torch.manual_seed(recipe.seed)
    unet = pipeline.unet.requires_grad_(False)
    pairs = attach(unet, rank=recipe.rank, conv_rank=recipe.conv_rank)
    parameters = [parameter for pair in pairs.values() for parameter in pair.parameters()]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.99), weight_decay=1e-4)
    side = float(unet.config.sample_size * 8)
    ids = torch.tensor([side, side, 0, 0, side, side]).expand(recipe.batch, -1)
    mask = padding_mask(recipe.batch, samples.length)
    began, smooth = time.monotonic(), 0.0
    for step in range(recipe.steps):
        generator = step_generator(recipe.seed, step)
        rows = torch.randint(len(samples.latents), (recipe.batch,), generator=generator)
        dropped = torch.rand(recipe.batch, generator=generator) < DROPOUT
        latents = samples.latents[rows]
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = stratified_timesteps(recipe.batch, EVEN, generator)
        alpha_bar = alphas_cumprod()[timesteps]
        with torch.autocast("cpu", torch.bfloat16):
            prediction = unet(
                add_noise(latents, noise, alpha_bar),
                timesteps,
                encoder_hidden_states=samples.context[rows].masked_fill(dropped[:, None, None], 0),
                encoder_attention_mask=mask,
                added_cond_kwargs={
                    "text_embeds": samples.pooled[rows].masked_fill(dropped[:, None], 0),
                    "time_ids": ids,
                },
            ).sample
        error = (prediction.float() - noise).square().mean((1, 2, 3))
        loss = (error * min_snr_weight(alpha_bar)).mean()
        rate = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / 20) * rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        smooth = float(loss.detach()) if step == 0 else 0.95 * smooth + 0.05 * float(loss.detach())
        if step % 25 == 0:
            _log.info("step %d  loss %.4f  %.1f s", step, smooth, time.monotonic() - began)
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write the file."""
    parser = argparse.ArgumentParser(prog="python -m pocketxl.export.miniature.lora", description=__doc__)
    parser.add_argument("--base", type=Path, default=WEIGHTS, help="diffusers folder (default: the miniature's)")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    for name, value in vars(LoraRecipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    recipe = LoraRecipe(**{name: options[name] for name in vars(LoraRecipe())})
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        str(options["base"]), dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    samples = make_samples(pipeline, recipe)
    plain_attention(torch.nn.ModuleDict({"unet": pipeline.unet}))
    pairs = train(pipeline, samples, recipe)
    write_kohya(pairs, options["out"], title="blueprint", steps=recipe.steps, images=recipe.pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
