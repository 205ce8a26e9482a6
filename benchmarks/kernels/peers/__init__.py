"""What torch offers for the same layer as one of our calls."""

from __future__ import annotations

from typing import Any

from pocketxl.kernels.architecture import Architecture
from pocketxl.kernels.sdxl import Call

from ..systems import System
from .attention import attentions
from .conv import convs
from .linear import geglus, linears
from .norm import group_norm, layer_norm, quantize


def peers(call: Call, arch: Architecture) -> dict[str, System]:
    """Every system that is timed beside ours on a call, by name."""
    shape: Any = dict(call.shape)
    match call.op:
        case "linear_w8a8" | "linear_w4a8" | "linear_w4" | "linear_w8":
            return linears(shape, arch, narrow=call.op == "linear_w8a8")
        case "geglu_linear_w8a8" | "geglu_linear_w4a8":
            return geglus(shape)
        case "conv_w8a8" | "conv_w4" | "conv_w8":
            return convs(shape)
        case "attention" | "attention_int8" if not shape.get("causal"):
            return attentions(shape)
        case "layer_norm_quantize" | "add_layer_norm_quantize":
            added = call.op.startswith("add")
            return {
                "torch-fp16": layer_norm(shape, added, compiled=False),
                "torch-compile-int8": layer_norm(shape, added, compiled=True),
            }
        case "group_norm_silu" | "group_norm_silu_quantize" if not shape.get("c2"):
            return {"torch-fp16": group_norm(shape)}
        case "quantize_per_token" | "geglu_quantize":
            return {"torch-compile-int8": quantize(shape, gated=call.op == "geglu_quantize")}
    return {}
