"""Norms, GEGLU and quantization by torch, as written and by its compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..systems import System, Work, compiled_once, normal, rows_to_int8


def layer_norm(shape: Mapping[str, Any], added: bool, *, compiled: bool) -> System:
    """LayerNorm, of a sum if `added`; by torch's compiler with the quantization of its rows."""
    m, k = shape["m"], shape["c"]

    def layer(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor) -> object:
        total = x if residual is None else x + residual
        out = F.layer_norm(total, (k,), weight, bias)
        return (total, *rows_to_int8(out)) if compiled else (total, out)

    function: Any = compiled_once(layer) if compiled else layer

    def system(seed: int) -> Work:
        x, weight, bias = normal(m, k, seed=seed), normal(k, seed=seed + 1), normal(k, seed=seed + 2)
        residual = normal(m, k, seed=seed + 3) if added else None
        return lambda: function(x, residual, weight, bias)

    return system


def group_norm(shape: Mapping[str, Any]) -> System:
    """GroupNorm and SiLU, channels last."""
    batch, height, width, channels, groups = (shape[name] for name in ("b", "h", "w", "c", "groups"))

    def system(seed: int) -> Work:
        x = normal(batch, channels, height, width, seed=seed).to(memory_format=torch.channels_last)
        weight, bias = normal(channels, seed=seed + 1), normal(channels, seed=seed + 2)

        def run() -> Tensor:
            out = F.group_norm(x, groups, weight, bias, 1e-5)
            return F.silu(out) if shape.get("silu", True) else out

        return run

    return system


def quantize(shape: Mapping[str, Any], *, gated: bool) -> System:
    """The quantization of rows, behind GEGLU's gate if `gated`, by torch's compiler."""
    m, k = shape["m"], shape["n"] * 2 if gated else shape["c"]

    def layer(x: Tensor) -> object:
        if gated:
            value, gate = x.chunk(2, -1)
            x = value * F.gelu(gate)
        return rows_to_int8(x)

    function = compiled_once(layer)

    def system(seed: int) -> Work:
        x = normal(m, k, seed=seed)
        return lambda: function(x)

    return system
