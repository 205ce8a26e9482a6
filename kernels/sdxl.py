"""Every kernel call that one forward of SDXL's base or refiner makes, as data.

The steps are those of `sdxl_steps`; a recipe says which ops compute a step. First and last convolution (4 channels) and
the concatenations stay with the caller's library, in 16 bits: they are 0.01 % of the operations.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from .architecture import Architecture
from .errors import KernelError
from .launch import Plan
from .sdxl_steps import Attention, Concatenate, Conv, GroupNorm, LayerNorm, Linear, Model, Step, steps
from .sensitive import Stands, sensitive_roles

Recipe = Literal["w8a8", "w4"]
RECIPES: Final[tuple[Recipe, ...]] = ("w8a8", "w4")
Value = int | float | str | bool | tuple[int, int]
Ask = tuple[str, dict[str, Value]]

OPS: Final[Mapping[str, str]] = {
    "linear_w8a8": "linear",
    "geglu_linear_w8a8": "linear",
    "conv_w8a8": "conv",
    "layer_norm_quantize": "norm",
    "add_layer_norm_quantize": "norm",
    "group_norm_silu": "norm",
    "group_norm_silu_quantize": "norm",
    "quantize_per_token": "quantize",
    "quantize_per_image": "quantize",
    "geglu_quantize": "quantize",
    "attention": "attention",
    "attention_int8": "attention",
    "linear_w4": "weight_only",
    "linear_w8": "weight_only",
    "conv_w4": "weight_only",
    "conv_w8": "weight_only",
}
"""Every op, and the folder whose ``launch.py`` plans it."""

SIZES: Final = ((512, 512), (768, 768), (1024, 1024), (832, 1216), (1216, 832), (1536, 1536))
"""Heights and widths that compiled kernels are held to; the kernels take any other as well."""
BATCHES: Final = (1, 2)

EIGHT_BITS: Final = sensitive_roles(Stands.STATIC_RANGE)
"""Roles that the `w4` recipe keeps in 8 bits: the sensitive ones, which hold 3 % of the base's weights and 7 % of the
refiner's."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """`count` calls of an op on one shape: the keyword arguments of its plan function, without `arch`."""

    op: str
    shape: Mapping[str, Value]
    count: int


def calls(
    model: Model,
    *,
    height: int,
    width: int,
    batch: int = 1,
    tokens: int = 77,
    recipe: Recipe = "w8a8",
    dtype: str = "int8",
) -> tuple[Call, ...]:
    """The calls of one forward, equal ones together, in the order in which they first occur.

    Args:
        model: base or refiner.
        height: of the picture, in pixels; a multiple of 8.
        width: likewise.
        batch: latents, so 2 for one picture with guidance.
        tokens: of the prompt, a multiple of 77.
        recipe: w8a8, 8-bit weights and activations; w4, 4-bit weights (some 8-bit), float16 activations.
        dtype: of the 8-bit operands in linears: int8 or float8_e4m3fn.
    """
    walk = steps(model, height=height, width=width, batch=batch, tokens=tokens)
    if recipe == "w8a8":
        return _counted(ask for step in walk for ask in w8a8(step, dtype))
    return _counted(ask for step in walk for ask in w4(step))


def plan(call: Call, arch: Architecture) -> Plan:
    """The plan of one call on an architecture.

    Raises:
        KernelError: there is no such op, or it cannot take the shape.
    """
    made: Plan = plan_function(call.op)(**call.shape, arch=arch)
    return made


@cache
def plan_function(op: str) -> Any:
    """The function ``plan_<op>``."""
    if op not in OPS:
        raise KernelError(f"no op {op!r}; there are {', '.join(OPS)}")
    return getattr(importlib.import_module(f".{OPS[op]}.launch", __package__), f"plan_{op}")


def all_plans(arch: Architecture) -> tuple[Plan, ...]:
    """Plans that between them hold every kernel that SDXL needs on an architecture; those that add none are left out.

    Both models and recipes, the sizes in `SIZES`, batches of one and two; float16, and for the base's linears float8
    where the architecture has it; and `alternatives`.
    """
    found: list[Plan] = []
    seen: set[object] = set()
    for call in _shipped(arch):
        made = plan(call, arch)
        if not seen.issuperset(made.variants):
            seen.update(made.variants)
            found.append(made)
    return tuple(found)


def alternatives(found: Iterable[Call]) -> Iterator[Call]:
    """Calls that do the same another way, which a model or a recipe may choose instead.

    An addition inside the norm instead of behind the linear before it; GEGLU behind its linear instead of inside;
    attention that sums in float16, which GeForce cards take twice as fast; self-attention in float16 altogether; every
    weight-only layer in 8 bits instead of 4.
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
            case "attention_int8":
                yield Call(op="attention_int8", shape={**shape, "accumulate_half": True}, count=call.count)
                yield Call(op="attention", shape=shape, count=call.count)
            case "linear_w4" | "conv_w4":
                yield Call(op=call.op.replace("w4", "w8"), shape=shape, count=call.count)


def w8a8(step: Step, dtype: str = "int8") -> Iterator[Ask]:
    """The calls that compute one step with 8-bit weights and activations; each op quantizes for the next."""
    match step:
        case Conv(role="in" | "out") | Concatenate():
            return
        case Conv(role="shortcut"):
            # Two pictures side by side have a scale each, since their ranges differ.
            for c in (step.c_in - step.c_kept, step.c_kept):
                if c:
                    yield "quantize_per_image", _image(step, c)
            yield "conv_w8a8", _conv(step)
        case Conv(role="down" | "up"):
            yield "quantize_per_image", _image(step, step.c_in)
            yield "conv_w8a8", _conv(step)
        case Conv():
            yield "conv_w8a8", _conv(step)
        case GroupNorm(silu=True):
            yield "group_norm_silu_quantize", _group_norm(step)
        case GroupNorm():
            yield "group_norm_silu", _group_norm(step)
        case LayerNorm():
            yield "layer_norm_quantize", {"m": step.rows, "c": step.channels, "eps": step.eps, "dtype": dtype}
        case Attention(cross=False):
            yield "attention_int8", _attention(step)
        case Attention():
            yield "attention", _attention(step)
        case Linear(gated=True):
            yield "geglu_linear_w8a8", {"m": step.rows, "n": step.n, "k": step.k, "dtype": dtype}
        case Linear():
            if step.role not in ("qkv", "q"):  # the norms quantize for these
                yield "quantize_per_token", {"m": step.rows, "c": step.k, "dtype": dtype}
            yield "linear_w8a8", {**_linear(step), "dtype": dtype}


def w4(step: Step) -> Iterator[Ask]:
    """The calls that compute one step with 4-bit weights; LayerNorm and GEGLU's gate stay with the caller's library."""
    match step:
        case Conv(role="in" | "out") | Concatenate() | LayerNorm():
            return
        case Conv():
            yield f"conv_{_weight(step)}", _conv_weight_only(step)
        case GroupNorm():
            yield "group_norm_silu", _group_norm(step)
        case Attention():
            yield "attention", _attention(step)
        case Linear():
            yield f"linear_{_weight(step)}", _linear(step)


def _weight(step: Conv | Linear) -> str:
    return "w8" if step.role in EIGHT_BITS else "w4"


def _linear(step: Linear) -> dict[str, Value]:
    n = 2 * step.n if step.gated else step.n
    return {"m": step.rows, "n": n, "k": step.k, "bias": step.bias, "residual": step.residual}


def _conv(step: Conv) -> dict[str, Value]:
    return {**_image(step, step.c_in - step.c_kept), "c2": step.c_kept, "n": step.c_out, **_filter(step)}


def _conv_weight_only(step: Conv) -> dict[str, Value]:
    return {**_image(step, step.c_in), "n": step.c_out, **_filter(step)}


def _filter(step: Conv) -> dict[str, Value]:
    shape: dict[str, Value] = {
        "kernel": step.kernel, "stride": step.stride, "time": step.time, "residual": step.residual
    }  # fmt: skip
    if step.upsample_to:
        shape["upsample_to"] = step.upsample_to
    return shape


def _image(step: Conv | GroupNorm, c: int) -> dict[str, Value]:
    return {"b": step.batch, "h": step.height, "w": step.width, "c": c}


def _group_norm(step: GroupNorm) -> dict[str, Value]:
    return {**_image(step, step.channels), "groups": step.groups, "eps": step.eps, "silu": step.silu}


def _attention(step: Attention) -> dict[str, Value]:
    shape: dict[str, Value] = {"batch": step.batch, "m": step.queries, "n": step.keys, "heads": step.heads}
    if not step.cross:  # slices of what the fused linear wrote
        wide = 3 * 64 * step.heads
        shape |= {"q_stride": wide, "k_stride": wide, "v_stride": wide}
    return shape


def _counted(asks: Iterable[Ask]) -> tuple[Call, ...]:
    counts: dict[tuple[str, tuple[tuple[str, Value], ...]], int] = {}
    for op, shape in asks:
        key = (op, tuple(shape.items()))
        counts[key] = counts.get(key, 0) + 1
    return tuple(Call(op=op, shape=dict(shape), count=count) for (op, shape), count in counts.items())


def _shipped(arch: Architecture) -> Iterator[Call]:
    for model in ("base", "refiner"):
        for height, width in SIZES:
            for batch in BATCHES:
                size: Any = {"model": model, "height": height, "width": width, "batch": batch}
                for recipe in RECIPES:
                    found = calls(**size, recipe=recipe)
                    yield from found
                    yield from alternatives(found)
                if arch.fp8 and model == "base":
                    yield from (c for c in calls(**size, dtype="float8_e4m3fn") if "dtype" in c.shape)
