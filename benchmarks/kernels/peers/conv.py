"""Convolutions by torch, which asks cuDNN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..systems import System, Work, normal


def convs(shape: Mapping[str, Any]) -> dict[str, System]:
    """Systems for a convolution, all its input channels together."""
    picture = {**shape, "c": shape["c"] + shape.get("c2", 0), "upsample": "upsample_to" in shape}
    return {
        "cudnn-fp16": _conv(picture, torch.float16),
        "cudnn-bf16": _conv(picture, torch.bfloat16),
        "cudnn-fp16-conv-only": _conv({**picture, "time": False, "residual": False}, torch.float16),
    }


def _conv(shape: Mapping[str, Any], dtype: torch.dtype) -> System:
    """What torch does for the layer: channels last, each addition a pass of its own."""
    kernel, stride = shape["kernel"], shape["stride"]

    def system(seed: int) -> Work:
        def image(n: int, channels: int, h: int, w: int, seed: int) -> Tensor:
            return normal(n, channels, h, w, seed=seed, dtype=dtype).to(memory_format=torch.channels_last)

        x = image(shape["b"], shape["c"], shape["h"], shape["w"], seed)
        weight = image(shape["n"], shape["c"], kernel, kernel, seed + 1)
        bias = normal(shape["n"], seed=seed + 2, dtype=dtype)
        grow = 2 if shape["upsample"] else 1
        h, w = (-(-grow * side // stride) for side in (shape["h"], shape["w"]))
        residual = image(shape["b"], shape["n"], h, w, seed + 3) if shape["residual"] else None
        time = normal(shape["b"], shape["n"], 1, 1, seed=seed + 4, dtype=dtype) if shape["time"] else None

        def run() -> Tensor:
            given = F.interpolate(x, scale_factor=2.0, mode="nearest") if shape["upsample"] else x
            out = F.conv2d(given, weight, bias, stride=stride, padding=kernel // 2)
            for more in (time, residual):
                out = out if more is None else out + more
            return out

        return run

    return system
