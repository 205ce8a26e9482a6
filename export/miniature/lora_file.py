"""Trained pairs as a file in the form of kohya-ss/sd-scripts, which every program with LoRAs reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .lora_layers import LowRank


def write_kohya(pairs: Mapping[str, LowRank], file: Path, *, title: str, steps: int, images: int) -> None:
    """Write pairs of the base's U-Net, by diffusers' layer names, in float16; alpha is the rank."""
    tensors: dict[str, Tensor] = {}
    for name, pair in pairs.items():
        key = "lora_unet_" + name.replace(".", "_")
        kernel = (1,) * (pair.down.dim() - 2)
        tensors[f"{key}.lora_down.weight"] = pair.down.detach().half().contiguous()
        tensors[f"{key}.lora_up.weight"] = pair.up.detach().half().reshape(*pair.up.shape, *kernel).contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(float(len(pair.down)), dtype=torch.float16)
    ranks = sorted({len(pair.down) for pair in pairs.values()})
    metadata = {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks[-1]),
        "ss_network_alpha": str(float(ranks[-1])),
        "ss_output_name": title,
        "ss_steps": str(steps),
        "ss_num_train_images": str(images),
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": title,
        "modelspec.license": "Apache-2.0",
        "modelspec.description": "Blueprints: a style for PocketXL's miniature, which no other model can use",
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata=metadata)
