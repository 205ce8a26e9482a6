"""The data set: compositions drawn and encoded once, kept as float16 latents."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from .compose import Composition, Painter, Pixels, Size, buckets, draw_composition
from .text import tokenize
from .vocabulary import Emoji

_log = logging.getLogger(__name__)
SHARES = (0.8, 0.1, 0.1)  # of square, landscape and portrait samples


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """All samples of one target size: scaled latents float16, ids float32, token ids int16."""

    latents: Tensor
    time_ids: Tensor
    scores: Tensor
    tokens: Tensor
    tokens_2: Tensor
    captions: list[str]


def to_unit(pixels: Pixels) -> Tensor:
    """uint8 pictures (batch, height, width, 3) as float32 in [-1, 1], (batch, 3, height, width), channels last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Scaled latents of pictures in [-1, 1]; the mean of the posterior, since its spread is small."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        mean = vae.encode(pictures).latent_dist.mean
    scaled: Tensor = mean.float() * vae.config.scaling_factor
    return scaled


def build_buckets(
    vocabulary: Sequence[Emoji],
    vae: AutoencoderKL,
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    *,
    resolution: int,
    count: int,
    seed: int,
    cache: Path | None,
    device: torch.device,
) -> tuple[Bucket, ...]:
    """Draw and encode `count` compositions, or read them back from `cache`."""
    names = [emoji.name for emoji in vocabulary]
    drawn = {}
    for size, share in zip(buckets(resolution), SHARES, strict=True):
        rng = random.Random(f"{seed} {size}")
        drawn[size] = [draw_composition(names, rng, size) for _ in range(round(count * share))]
    # The compositions themselves, so that a changed mixture is not mistaken for what is there.
    key = hashlib.sha256(json.dumps([list(map(asdict, some)) for some in drawn.values()]).encode()).hexdigest()[:16]
    file = cache / f"latents-{key}.pt" if cache else None
    if file and file.exists():
        return tuple(Bucket(**fields) for fields in torch.load(file, weights_only=True))
    painter = Painter(vocabulary)
    result = []
    for size, some in drawn.items():
        latents = _encode_all(some, painter, vae, size, device)
        text = [composition.caption for composition in some]
        result.append(
            Bucket(
                latents=latents,
                time_ids=torch.tensor([composition.time_ids for composition in some], dtype=torch.float32),
                scores=torch.tensor([composition.aesthetic_score for composition in some]),
                tokens=tokenize(tokenizers[0], text),
                tokens_2=tokenize(tokenizers[1], text),
                captions=text,
            )
        )
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save([vars(bucket) for bucket in result], file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    return tuple(result)


def _encode_all(
    drawn: Sequence[Composition], painter: Painter, vae: AutoencoderKL, size: Size, device: torch.device
) -> Tensor:
    parts = []
    for start in range(0, len(drawn), 32):
        pixels = np.stack([painter.paint(composition) for composition in drawn[start : start + 32]])
        pictures = to_unit(pixels).to(device, memory_format=torch.channels_last)
        parts.append(encode(vae, pictures).half().cpu())
        if start % 4096 == 0:
            _log.info("latents %dx%d: %d of %d", *size, start, len(drawn))
    return torch.cat(parts)
