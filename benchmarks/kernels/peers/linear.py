"""Linear layers by torch: 16 bits, int8 and float8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pocketxl.kernels.architecture import Architecture

from ..systems import System, Work, normal, short_sums


def geglus(shape: Mapping[str, Any]) -> dict[str, System]:
    """Systems for a linear layer whose output is halved by its gate."""
    return {
        "torch-fp16": _geglu(shape, torch.float16),
        "torch-fp16-short-sums": short_sums(_geglu(shape, torch.float16)),
        "torch-bf16": _geglu(shape, torch.bfloat16),
    }


def linears(shape: Mapping[str, Any], arch: Architecture, *, narrow: bool) -> dict[str, System]:
    """Systems for a linear layer; `narrow` adds those on 8-bit operands."""
    found = {
        "torch-fp16": _linear(shape, torch.float16),
        "torch-fp16-short-sums": short_sums(_linear(shape, torch.float16)),
        "torch-bf16": _linear(shape, torch.bfloat16),
    }
    if narrow:
        found["torch-int_mm"] = _int_mm(shape)
        if arch.fp8:
            found["torch-scaled_mm-float8"] = _scaled_mm(shape)
    return found


def _linear(shape: Mapping[str, Any], dtype: torch.dtype) -> System:
    m, n, k = shape["m"], shape["n"], shape["k"]

    def system(seed: int) -> Work:
        x, weight = normal(m, k, seed=seed, dtype=dtype), normal(n, k, seed=seed + 1, dtype=dtype)
        bias = normal(n, seed=seed + 2, dtype=dtype) if shape["bias"] else None
        residual = normal(m, n, seed=seed + 3, dtype=dtype) if shape["residual"] else None
        if residual is None:
            return lambda: F.linear(x, weight, bias)
        if bias is None:
            return lambda: torch.addmm(residual, x, weight.T)  # one pass
        return lambda: torch.addmm(residual, x, weight.T) + bias

    return system


def _geglu(shape: Mapping[str, Any], dtype: torch.dtype) -> System:
    m, n, k = shape["m"], shape["n"], shape["k"]

    def system(seed: int) -> Work:
        x, weight = normal(m, k, seed=seed, dtype=dtype), normal(2 * n, k, seed=seed + 1, dtype=dtype)
        bias = normal(2 * n, seed=seed + 2, dtype=dtype)

        def run() -> Tensor:
            value, gate = F.linear(x, weight, bias).chunk(2, -1)
            return value * F.gelu(gate)

        return run

    return system


def _int_mm(shape: Mapping[str, Any]) -> System:
    m, n, k = shape["m"], shape["n"], shape["k"]

    def system(seed: int) -> Work:
        x = normal(m, k, seed=seed).mul(40).clamp(-127, 127).to(torch.int8)
        weight = normal(n, k, seed=seed + 1).mul(40).clamp(-127, 127).to(torch.int8)
        scales = normal(m, 1, seed=seed + 2, dtype=torch.float32), normal(1, n, seed=seed + 3, dtype=torch.float32)
        bias = normal(n, seed=seed + 4)
        residual = normal(m, n, seed=seed + 5) if shape["residual"] else None

        def run() -> Tensor:
            out = (torch._int_mm(x, weight.T) * scales[0] * scales[1]).half() + bias
            return out if residual is None else out + residual

        return run

    return system


def _scaled_mm(shape: Mapping[str, Any]) -> System:
    m, n, k = shape["m"], shape["n"], shape["k"]
    eight, sixteen = torch.float8_e4m3fn, torch.bfloat16  # row scales come with bfloat16 results only

    def system(seed: int) -> Work:
        x, weight = normal(m, k, seed=seed).to(eight), normal(n, k, seed=seed + 1).to(eight)
        a, b = (torch.ones(*scales, device=x.device, dtype=torch.float32) for scales in ((m, 1), (1, n)))
        bias = normal(n, seed=seed + 2, dtype=sixteen) if shape["bias"] else None
        residual = normal(m, n, seed=seed + 3, dtype=sixteen) if shape["residual"] else None

        def run() -> Tensor:
            out: Tensor = torch._scaled_mm(x, weight.T, scale_a=a, scale_b=b, bias=bias, out_dtype=sixteen)
            return out if residual is None else out + residual

        return run

    return system
