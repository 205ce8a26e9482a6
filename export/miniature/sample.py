"""Sample grids: the same prompts and seeds every time, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image

from .compose import Size
from .measures import Pictures

# Picked before any model was trained, and never changed since: the contact sheet of the model card.
CONTACT_SHEET: Final = (
    "a red apple on a blue background",
    "a robot on a yellow background",
    "a panda on a pink background",
    "a rocket on a black background",
    "a cactus on an orange background",
    "a guitar on a teal background",
    "an octopus on a white background",
    "a fox on a green background",
    "a hamburger on a purple background",
    "a sailboat on a blue background",
    "a castle on a brown background",
    "a butterfly on a gray background",
    "a grinning face on a red background",
    "a red heart on a white background",
    "a penguin on a teal background",
    "a snowman on a red background",
    "an umbrella on a yellow background",
    "a trophy on a purple background",
    "a robot to the left of a pizza on a white background",
    "a cat face to the left of a dog face on a blue background",
    "a lemon to the left of a strawberry on a gray background",
    "a small airplane on a blue background",
    "a large sunflower on a black background",
    "an owl",
)


def generate(
    base: StableDiffusionXLPipeline,
    refiner: StableDiffusionXLImg2ImgPipeline | None,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 5.0,
    handover: float = 0.8,
    height: int | None = None,
    width: int | None = None,
    original_size: Size | None = None,
    crop: Size = (0, 0),
    batch: int = 24,
) -> Pictures:
    """Pictures of the prompts, float32 in [0, 1], (prompts, height, width, 3); picture i starts from noise seed + i.

    With a refiner the base stops at the share `handover` of the noise levels and the refiner goes on from its latents.
    """
    pictures = []
    for start in range(0, len(prompts), batch):
        some = list(prompts[start : start + batch])
        # Noise from the CPU's generator: the same picture on every device.
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(some))]
        common = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "generator": generators}
        sizes = {"height": height, "width": width}
        ids: dict[str, Any] = {"crops_coords_top_left": crop}
        if original_size is not None:
            ids["original_size"] = original_size
        if refiner is None:
            result = base(some, output_type="np", **common, **sizes, **ids)
        else:
            latents = base(some, output_type="latent", denoising_end=handover, **common, **sizes, **ids).images
            result = refiner(some, image=latents, denoising_start=handover, output_type="np", **common, **ids)
        pictures.append(np.asarray(result.images, np.float32))
    return np.concatenate(pictures)


def save_grid(pictures: Pictures, columns: int, file: Path) -> None:
    """Write pictures in [0, 1] as one PNG, row by row."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for i, picture in enumerate((pictures.clip(0, 1) * 255).round().astype(np.uint8)):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = picture
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(file)
