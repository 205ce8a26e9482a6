"""Who is timed on a call: our op, and what torch offers for the same layer.

A system is a function from a seed to one run's work on inputs of its own; making the inputs is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pocketxl.kernels.architecture import Architecture
from pocketxl.kernels.execute import execute
from pocketxl.kernels.launch import Plan
from pocketxl.kernels.samples import samples
from pocketxl.kernels.sdxl import Call, plan

Work = Callable[[], object]
System = Callable[[int], Work]
DEVICE = "cuda"


def ours(made: Plan) -> System:
    """Our op on the plan's shapes."""

    def system(seed: int) -> Work:
        inputs = samples(made, device=DEVICE, seed=seed)
        return lambda: execute(made, inputs)

    return system


def ours_with_quantization(call: Call, arch: Architecture) -> System:
    """Our linear with the quantization of its input, which a float16 peer does not need."""
    made = plan(call, arch)
    shape = {"m": call.shape["m"], "c": call.shape["k"], "dtype": call.shape["dtype"]}
    quantize = plan(Call(op="quantize_per_token", shape=shape, count=1), arch)

    def system(seed: int) -> Work:
        inputs, given = samples(made, device=DEVICE, seed=seed), samples(quantize, device=DEVICE, seed=seed + 50)

        def run() -> object:
            x = execute(quantize, given)
            return execute(made, {**inputs, "x": x["q"], "x_scale": x["scale"]})

        return run

    return system


def peers(call: Call, arch: Architecture) -> dict[str, System]:
    """Every system that is timed beside ours on a call, by name."""
    shape: Any = dict(call.shape)
    match call.op:
        case "linear_w8a8" | "linear_w4" | "linear_w8":
            return _linears(shape, arch, narrow=call.op == "linear_w8a8")
        case "geglu_linear_w8a8":
            return {
                "torch-fp16": _geglu(shape, torch.float16),
                "torch-fp16-short-sums": short_sums(_geglu(shape, torch.float16)),
                "torch-bf16": _geglu(shape, torch.bfloat16),
            }
        case "conv_w8a8" | "conv_w4" | "conv_w8":
            picture = _picture(call)
            return {
                "cudnn-fp16": _conv(picture, torch.float16),
                "cudnn-bf16": _conv(picture, torch.bfloat16),
                "cudnn-fp16-conv-only": _conv({**picture, "time": False, "residual": False}, torch.float16),
            }
        case "attention" | "attention_int8":
            return _attentions(shape)
        case "layer_norm_quantize" | "add_layer_norm_quantize":
            added = call.op.startswith("add")
            return {
                "torch-fp16": _layer_norm(shape, added, compiled=False),
                "torch-compile-int8": _layer_norm(shape, added, compiled=True),
            }
        case "group_norm_silu" | "group_norm_silu_quantize":
            return {"torch-fp16": _group_norm(shape)}
        case "quantize_per_token" | "geglu_quantize":
            return {"torch-compile-int8": _quantize(shape, gated=call.op == "geglu_quantize")}
    return {}


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float16) -> Tensor:
    """Normal numbers on the GPU."""
    random = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=random, device=DEVICE).to(dtype)


def short_sums(system: System) -> System:
    """The same with matrix products that sum in float16, which GeForce cards take twice as fast."""

    def wrapped(seed: int) -> Work:
        work = system(seed)

        def run() -> object:
            with _short_sums():
                return work()

        return run

    return wrapped


@contextmanager
def _short_sums() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_fp16_accumulation = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_fp16_accumulation = False


def _linears(shape: Mapping[str, Any], arch: Architecture, *, narrow: bool) -> dict[str, System]:
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
        ones = {"device": DEVICE, "dtype": torch.float32}
        a, b = torch.ones(m, 1, **ones), torch.ones(1, n, **ones)  # type: ignore[call-overload]
        bias = normal(n, seed=seed + 2, dtype=sixteen) if shape["bias"] else None
        residual = normal(m, n, seed=seed + 3, dtype=sixteen) if shape["residual"] else None

        def run() -> Tensor:
            out: Tensor = torch._scaled_mm(x, weight.T, scale_a=a, scale_b=b, bias=bias, out_dtype=sixteen)
            return out if residual is None else out + residual

        return run

    return system


def _picture(call: Call) -> dict[str, Any]:
    """The numbers of a convolution, all its input channels together."""
    shape: Any = dict(call.shape)
    return {**shape, "c": shape["c"] + shape.get("c2", 0), "upsample": "upsample_to" in shape}


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


def _attentions(shape: Mapping[str, Any]) -> dict[str, System]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def sdpa(backend: SDPBackend) -> System:
        def system(seed: int) -> Work:
            batch, heads = shape["batch"], shape["heads"]
            q, k, v = (
                normal(batch, tokens, heads * 64, seed=seed + i).view(batch, tokens, heads, 64).transpose(1, 2)
                for i, tokens in enumerate((shape["m"], shape["n"], shape["n"]))
            )

            def run() -> Tensor:
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v)

            return run

        return system

    return {
        "sdpa-flash": sdpa(SDPBackend.FLASH_ATTENTION),
        "sdpa-cudnn": sdpa(SDPBackend.CUDNN_ATTENTION),
        "sdpa-efficient": sdpa(SDPBackend.EFFICIENT_ATTENTION),
    }


def rows_to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantization per row as one writes it in torch; what a compiler may fuse."""
    value = x.float()
    scale = value.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (value / scale).round().to(torch.int8), scale


def compiled_once(layer: Callable[..., object]) -> Callable[..., object]:
    """`layer` by torch.compile, which is asked at the first run: it takes seconds to import even."""

    @cache
    def made() -> Callable[..., object]:
        return torch.compile(layer, dynamic=False)

    return lambda *given: made()(*given)


def _layer_norm(shape: Mapping[str, Any], added: bool, *, compiled: bool) -> System:
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


def _group_norm(shape: Mapping[str, Any]) -> System:
    batch, height, width, channels, groups = (shape[name] for name in ("b", "h", "w", "c", "groups"))

    def system(seed: int) -> Work:
        x = normal(batch, channels, height, width, seed=seed).to(memory_format=torch.channels_last)
        weight, bias = normal(channels, seed=seed + 1), normal(channels, seed=seed + 2)

        def run() -> Tensor:
            out = F.group_norm(x, groups, weight, bias, 1e-5)
            return F.silu(out) if shape.get("silu", True) else out

        return run

    return system


def _quantize(shape: Mapping[str, Any], *, gated: bool) -> System:
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
