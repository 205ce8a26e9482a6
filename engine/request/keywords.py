"""The keywords of a call, typed, so that editors complete them and type checkers hold callers to them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy.typing as npt

from .loras import Loras


class CallOptions(TypedDict, total=False):
    """Every keyword of a call besides the prompt; meanings and defaults are `GenerationRequest`'s."""

    prompt_2: str | Sequence[str] | None
    height: int | None
    width: int | None
    num_inference_steps: int
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    denoising_end: float | None
    guidance_scale: float
    negative_prompt: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    num_images_per_prompt: int
    eta: float
    generator: Any
    latents: npt.ArrayLike | None
    prompt_embeds: Any
    negative_prompt_embeds: Any
    pooled_prompt_embeds: Any
    negative_pooled_prompt_embeds: Any
    clip_skip: int | None
    output_type: str
    guidance_rescale: float
    guidance_start: float
    guidance_end: float
    deep_cache: int
    original_size: tuple[int, int] | None
    crops_coords_top_left: tuple[int, int]
    target_size: tuple[int, int] | None
    negative_original_size: tuple[int, int] | None
    negative_crops_coords_top_left: tuple[int, int]
    negative_target_size: tuple[int, int] | None
    aesthetic_score: float
    negative_aesthetic_score: float
    callback_on_step_end: Callable[..., Any] | None
    seed: int | Sequence[int] | None
    sampler: str
    schedule: str
    preset: str | None
    refiner: bool
    embedding_folder: str | Path | None
    dynamic: bool
    wildcard_folder: str | Path | None
    loras: Loras | None
    lora_folder: str | None
    decoder: str
    literal: bool
    image: Any
    strength: float | None
    mask_image: Any
    mask_blur: float
    paste_back: bool
    padding_mask_crop: int | None
    denoising_start: float | None
    base: bool
    hires_scale: float | None
    hires_strength: float
    hires_steps: int | None
    hires_upscaler: str | None
    control_image: Any
    controlnet_conditioning_scale: float | Sequence[float] | Mapping[str, float] | None
    control_guidance_start: float | Sequence[float] | Mapping[str, float] | None
    control_guidance_end: float | Sequence[float] | Mapping[str, float] | None
    control_preprocess: str | Sequence[str | None] | Mapping[str, str | None] | None
    control_mode: Any
    adapter_image: Any
    adapter_conditioning_scale: float | Sequence[float] | Mapping[str, float] | None
    adapter_conditioning_factor: float | Sequence[float] | Mapping[str, float] | None
    adapter_preprocess: str | Sequence[str | None] | Mapping[str, str | None] | None
    ip_adapter_image: Any
    ip_adapter_scale: float | None
