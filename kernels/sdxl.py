"""Every kernel call that one forward of SDXL's base, refiner or VAE makes, as data.

The layers are those of `sdxl_layers`; a precision says which ops compute a layer. Left out are the concatenations, and
first and last convolution (4 channels), 0.01 % of the operations: `sdxl_edges` has those.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from .architecture import Architecture
from .errors import KernelError
from .launch import LaunchPlan
from .sdxl_edges import edges
from .sdxl_layers import Attention, Concatenate, Conv, GroupNorm, Layer, LayerNorm, Linear, UNetName, layers
from .sensitive import Stands, sensitive_roles

Precision = Literal["w8a8", "w4"]
PRECISIONS: Final[tuple[Precision, ...]] = ("w8a8", "w4")
Value = int | float | str | bool | tuple[int, int]
Ask = tuple[str, dict[str, Value]]

OPS: Final[Mapping[str, str]] = {
    "linear_w8a8": "linear",
    "geglu_linear_w8a8": "linear",
    "conv_w8a8": "conv",
    "layer_norm": "norm",
    "layer_norm_quantize": "norm",
    "add_layer_norm_quantize": "norm",
    "group_norm_silu": "norm",
    "group_norm_silu_quantize": "norm",
    "quantize_per_token": "quantize",
    "quantize_per_image": "quantize",
    "geglu_quantize": "quantize",
    "geglu": "quantize",
    "read_pixels": "pixels",
    "activate": "activate",
    "attention": "attention",
    "attention_int8": "attention",
    "self_attention": "attention",
    "attention_wide": "attention_wide",
    "linear_w4": "weight_only",
    "linear_w4a8": "four_bits",
    "geglu_linear_w4a8": "four_bits",
    "linear_w8": "weight_only",
    "conv_w4": "weight_only",
    "conv_w8": "weight_only",
    "linear_f16": "half",
    "conv_f16": "half",
}
"""Every op, and the folder whose `plan.py` plans it."""

SIZES: Final = ((512, 512), (768, 768), (1024, 1024), (832, 1216), (1216, 832), (1536, 1536))
"""Heights and widths that compiled kernels are held to; the kernels take any other as well."""
BATCHES: Final = (1, 2)
VAE_CHANNELS: Final = 512
"""Of the middle of SDXL's VAE."""

EIGHT_BITS: Final = sensitive_roles(Stands.STATIC_RANGE)
"""Roles that the `w4` precision keeps in 8 bits: 3 % of the base's weights, 7 % of the refiner's."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """`count` calls of an op on one shape: the keyword arguments of its `plan_<op>`, without `arch`."""

    op: str
    shape: Mapping[str, Value]
    count: int


def calls(
    model: UNetName,
    *,
    height: int,
    width: int,
    batch: int = 1,
    tokens: int = 77,
    precision: Precision = "w8a8",
    dtype: str = "int8",
) -> tuple[Call, ...]:
    """The calls of one forward, equal ones together, in the order in which they first occur.

    `model`: base or refiner. `height`: of the picture, in pixels; a multiple of 8. `width`: likewise. `batch`: latents,
    so 2 for one picture with guidance. `tokens`: of the prompt, a multiple of 77. `precision`: w8a8, 8-bit weights and
    activations; w4, 4-bit weights (some 8-bit), float16 activations. `dtype`: of the 8-bit operands in linears: int8 or
    float8_e4m3fn.
    """
    walk = layers(model, height=height, width=width, batch=batch, tokens=tokens)
    if precision == "w8a8":
        return _counted(ask for layer in walk for ask in w8a8(layer, dtype))
    return _counted(ask for layer in walk for ask in w4(layer))


def vae_calls(*, height: int, width: int, batch: int = 1) -> tuple[Call, ...]:
    """The calls of one pass through SDXL's VAE, either way, that have kernels here: the attention in its middle.

    `height`: of the picture, in pixels; a multiple of 8. `width`: likewise. `batch`: pictures.
    """
    tokens, wide = height // 8 * (width // 8), 3 * VAE_CHANNELS  # slices of what the fused linear wrote
    shape: dict[str, Value] = {"batch": batch, "m": tokens, "n": tokens, "channels": VAE_CHANNELS}
    shape |= {"q_stride": wide, "k_stride": wide, "v_stride": wide}
    return (Call(op="attention_wide", shape=shape, count=1),)


def launch_plan(call: Call, arch: Architecture) -> LaunchPlan:
    """The launch plan of one call on an architecture.

    Raises `KernelError`: there is no such op, or it cannot take the shape.
    """
    made: LaunchPlan = plan_function(call.op)(**call.shape, arch=arch)
    return made


@cache
def plan_function(op: str) -> Any:
    """The function `plan_<op>`."""
    if op not in OPS:
        raise KernelError(f"no op {op!r}; there are {', '.join(OPS)}")
    return getattr(importlib.import_module(f".{OPS[op]}.plan", __package__), f"plan_{op}")


def all_launch_plans(arch: Architecture) -> tuple[LaunchPlan, ...]:
    """Launch plans that between them hold every kernel that SDXL needs on an architecture, and none that adds nothing.

    Both models and precisions, and the VAE's attention; the sizes in `SIZES`, batches of one and two; float16, and for
    the base's linears float8 where the architecture has it; `alternatives`; and `edges`.
    """
    found: list[LaunchPlan] = []
    seen: set[object] = set()
    for call in _shipped(arch):
        made = launch_plan(call, arch)
        if not seen.issuperset(made.variants):
            seen.update(made.variants)
            found.append(made)
    return tuple(found)


def alternatives(found: Iterable[Call]) -> Iterator[Call]:
    """Calls that do the same another way, which whoever builds a model may choose instead.

    An addition inside the norm instead of behind the linear before it; GEGLU behind its linear instead of inside;
    GEGLU by weights of 4 bits; self-attention in each form, whatever the card; every weight-only layer in 8 bits
    instead of 4, or a linear one's 4 bits by 8 of its input.
    """
    for call in found:
        shape = dict(call.shape)
        match call.op:
            case "layer_norm_quantize":
                yield Call(op="add_layer_norm_quantize", shape=shape, count=call.count)
            case "geglu_linear_w8a8":
                m, n = shape["m"], shape["n"]
                assert isinstance(m, int)
                assert isinstance(n, int)
                yield Call(op="linear_w8a8", shape={**shape, "n": 2 * n}, count=call.count)
                gate = {"m": m, "n": n, "dtype": shape["dtype"]}
                yield Call(op="geglu_quantize", shape=gate, count=call.count)
                if shape["dtype"] == "int8":
                    yield Call(op="geglu_linear_w4a8", shape={"m": m, "n": n, "k": shape["k"]}, count=call.count)
            case "self_attention":
                for sums in (True, False):
                    yield Call(op="attention_int8", shape={**shape, "accumulate_half": sums}, count=call.count)
                yield Call(op="attention", shape=shape, count=call.count)
            case "linear_w4" | "conv_w4":
                yield Call(op=call.op.replace("w4", "w8"), shape=shape, count=call.count)
                if call.op == "linear_w4":
                    yield Call(op="linear_w4a8", shape=shape, count=call.count)


def w8a8(layer: Layer, dtype: str = "int8") -> Iterator[Ask]:
    """The calls that compute one layer with 8-bit weights and activations; each op quantizes for the next."""
    match layer:
        case Conv(role="in" | "out") | Concatenate():
            return
        case Conv(role="shortcut"):
            # Two pictures side by side have a scale each, since their ranges differ.
            for c in (layer.c_in - layer.c_kept, layer.c_kept):
                if c:
                    yield "quantize_per_image", _image(layer, c)
            yield "conv_w8a8", _conv(layer)
        case Conv(role="down" | "up"):
            yield "quantize_per_image", _image(layer, layer.c_in)
            yield "conv_w8a8", _conv(layer)
        case Conv():
            yield "conv_w8a8", _conv(layer)
        case GroupNorm(silu=True):
            yield "group_norm_silu_quantize", _group_norm(layer)
        case GroupNorm():
            yield "group_norm_silu", _group_norm(layer)
        case LayerNorm():
            yield "layer_norm_quantize", {"m": layer.rows, "c": layer.channels, "eps": layer.eps, "dtype": dtype}
        case Attention(cross=False):
            yield "self_attention", _attention(layer)
        case Attention():
            yield "attention", _attention(layer)
        case Linear(gated=True):
            yield "geglu_linear_w8a8", {"m": layer.rows, "n": layer.n, "k": layer.k, "dtype": dtype}
        case Linear():
            if layer.role not in ("qkv", "q"):  # the norms quantize for these
                yield "quantize_per_token", {"m": layer.rows, "c": layer.k, "dtype": dtype}
            yield "linear_w8a8", {**_linear(layer), "dtype": dtype}


def w4(layer: Layer) -> Iterator[Ask]:
    """The calls that compute one layer with 4-bit weights; LayerNorm and GEGLU's gate stay with the caller."""
    match layer:
        case Conv(role="in" | "out") | Concatenate() | LayerNorm():
            return
        case Conv():
            yield f"conv_{_weight(layer)}", _conv_weight_only(layer)
        case GroupNorm():
            yield "group_norm_silu", _group_norm(layer)
        case Attention():
            yield "attention", _attention(layer)
        case Linear():
            yield f"linear_{_weight(layer)}", _linear(layer)


def _weight(layer: Conv | Linear) -> str:
    return "w8" if layer.role in EIGHT_BITS else "w4"


def _linear(layer: Linear) -> dict[str, Value]:
    n = 2 * layer.n if layer.gated else layer.n
    return {"m": layer.rows, "n": n, "k": layer.k, "bias": layer.bias, "residual": layer.residual}


def _conv(layer: Conv) -> dict[str, Value]:
    return {**_image(layer, layer.c_in - layer.c_kept), "c2": layer.c_kept, "n": layer.c_out, **_filter(layer)}


def _conv_weight_only(layer: Conv) -> dict[str, Value]:
    return {**_image(layer, layer.c_in), "n": layer.c_out, **_filter(layer)}


def _filter(layer: Conv) -> dict[str, Value]:
    shape: dict[str, Value] = {
        "kernel": layer.kernel, "stride": layer.stride, "time": layer.time, "residual": layer.residual
    }  # fmt: skip
    if layer.upsample_to:
        shape["upsample_to"] = layer.upsample_to
    return shape


def _image(layer: Conv | GroupNorm, c: int) -> dict[str, Value]:
    return {"b": layer.batch, "h": layer.height, "w": layer.width, "c": c}


def _group_norm(layer: GroupNorm) -> dict[str, Value]:
    return {**_image(layer, layer.channels), "groups": layer.groups, "eps": layer.eps, "silu": layer.silu}


def _attention(layer: Attention) -> dict[str, Value]:
    shape: dict[str, Value] = {"batch": layer.batch, "m": layer.queries, "n": layer.keys, "heads": layer.heads}
    if not layer.cross:  # slices of what the fused linear wrote
        wide = 3 * 64 * layer.heads
        shape |= {"q_stride": wide, "k_stride": wide, "v_stride": wide}
    return shape


def _counted(asks: Iterable[Ask]) -> tuple[Call, ...]:
    counts: dict[tuple[str, tuple[tuple[str, Value], ...]], int] = {}
    for op, shape in asks:
        key = (op, tuple(shape.items()))
        counts[key] = counts.get(key, 0) + 1
    return tuple(Call(op=op, shape=dict(shape), count=count) for (op, shape), count in counts.items())


def _shipped(arch: Architecture) -> Iterator[Call]:
    yield from (Call(op=op, shape=shape, count=1) for op, shape in edges())
    for height, width in SIZES:
        yield from vae_calls(height=height, width=width)
    for model in ("base", "refiner"):
        for height, width in SIZES:
            for batch in BATCHES:
                size: Any = {"model": model, "height": height, "width": width, "batch": batch}
                for precision in PRECISIONS:
                    found = calls(**size, precision=precision)
                    yield from found
                    yield from alternatives(found)
                if arch.fp8 and model == "base":
                    yield from (c for c in calls(**size, dtype="float8_e4m3fn") if "dtype" in c.shape)
