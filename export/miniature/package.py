"""Trained modules to diffusers-format folders, and to the pipelines that read them."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .models import scheduler

# Where the files lay on the machine that wrote them is nobody's business.
_PRIVATE = ("_name_or_path", "name_or_path", "is_local", "local_files_only")


def base_pipeline(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModelWithProjection,
    vae: AutoencoderKL,
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
) -> StableDiffusionXLPipeline:
    """The base as diffusers runs it; an empty prompt is zeros, as in SDXL base."""
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def refiner_pipeline(
    unet: UNet2DConditionModel,
    text_encoder_2: CLIPTextModelWithProjection,
    vae: AutoencoderKL,
    tokenizer_2: CLIPTokenizer,
) -> StableDiffusionXLImg2ImgPipeline:
    """The refiner as diffusers runs it; an empty prompt is encoded and not zeroed, as in SDXL refiner."""
    pipeline = StableDiffusionXLImg2ImgPipeline(
        vae=vae,
        text_encoder=None,
        text_encoder_2=text_encoder_2,
        tokenizer=None,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=scheduler(),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_folder(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Write a pipeline in fp16 safetensors; the folder appears whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    half: dict[str, Any] = {}
    for name, component in pipeline.components.items():
        half[name] = _half(component) if isinstance(component, nn.Module) else component
    flags = {name: pipeline.config[name] for name in ("force_zeros_for_empty_prompt", "requires_aesthetics_score")
             if name in pipeline.config}  # fmt: skip
    type(pipeline)(**half, **flags, add_watermarker=False).save_pretrained(str(part), safe_serialization=True)
    _settle(part)
    for name in ("tokenizer", "tokenizer_2"):
        if (part / name).exists():
            _write_clip_files(part / name)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    part.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Make the files those of an SDXL repository: no trace of where they came from, and the published tensor names."""
    for config in folder.glob("*/*config.json"):
        kept = {k: v for k, v in json.loads(config.read_text("utf-8")).items() if k not in _PRIVATE}
        config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", "utf-8")
    weights = folder / "text_encoder" / "model.safetensors"
    if weights.exists():
        # transformers 5 drops the prefix that every published SDXL checkpoint has, and that it reads itself.
        tensors = load_file(weights)
        prefix = "text_model."
        renamed = {k if k.startswith(prefix) else prefix + k: v for k, v in tensors.items()}
        save_file(renamed, weights, metadata={"format": "pt"})
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


def _write_clip_files(folder: Path) -> None:
    """Write `vocab.json` and `merges.txt`, CLIP's own format, in place of `tokenizer.json`."""
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    (folder / "tokenizer.json").unlink()


def _half(module: nn.Module) -> nn.Module:
    clone = copy.deepcopy(module)
    if isinstance(clone, UNet2DConditionModel):
        clone.set_attn_processor(AttnProcessor2_0())
    return clone.to(torch.float16).eval()
