"""Formats of targets that do not run here, in reference arithmetic: smoothed and rounded as a build does it, in torch.

Inputs and weights of every layer are rounded and multiplied in float32, which is what int8 products give and what 8-bit
floats are summed in. What a kernel adds of its own, such as attention in 8 bits, is not in it.
"""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketxl.engine.progress import Silent
from pocketxl.engine.specs import Role
from pocketxl.export.job import Job, models_of, open_as, prepare, tokenizers_of
from pocketxl.export.lowering import Lowering
from pocketxl.export.quantize.calibration import LayerStatistics
from pocketxl.export.quantize.choose import HEADROOM, choose
from pocketxl.export.quantize.formats import (
    FLOAT32,
    FP8_TENSOR,
    FP8_TOKEN,
    KEEP,
    W4,
    W4A8,
    W8,
    W8A8_DYNAMIC,
    W8A8_STATIC,
    W8A8_TOKEN,
    Format,
    Kind,
)
from pocketxl.export.quantize.input_rounding import round_inputs
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES, Recipe, Rule
from pocketxl.export.quantize.rounding import round_weight
from pocketxl.export.reference.run import run_reference
from pocketxl.export.reference.store import ReferenceStore
from pocketxl.export.targets.cpu.target import CpuTarget

from .cases import Case
from .systems import Opened, System
from .torch_runner import TorchRunner, torch_runners

_FORMATS = frozenset({FLOAT32, FP8_TENSOR, FP8_TOKEN, W4, W4A8, W8, W8A8_DYNAMIC, W8A8_STATIC, W8A8_TOKEN})
_HALF = 2.0
"""Seconds of a product in half precision, relative to one in 8 bits: what the processors of cards have of either."""


@dataclass(frozen=True, kw_only=True)
class _Card(CpuTarget):
    """A target that can multiply in all these formats; nothing is lowered for it."""

    formats: Mapping[Kind, frozenset[Format]] = field(default_factory=lambda: dict.fromkeys(Kind, _FORMATS))
    pace: Mapping[Format, float] = field(default_factory=lambda: {W8: _HALF})


KINDS: dict[type[nn.Module], Kind] = {nn.Linear: Kind.LINEAR, nn.Conv2d: Kind.CONV, nn.Embedding: Kind.EMBEDDING}


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What U-Nets' linear layers and convolutions have; the rest is as in the recipe `int8-weight`."""

    linear: Format
    conv: Format
    error: float | None = None
    """What is to be left of the error that all layers in these formats would have: those that matter most for their
    time are multiplied in half precision until the estimate says so. None: no layer is."""


MIXES = {
    "reference-w8a8-token": Mix(linear=W8A8_TOKEN, conv=W8A8_STATIC),
    "reference-fp8-tensor": Mix(linear=FP8_TENSOR, conv=FP8_TENSOR),
    "reference-fp8-token": Mix(linear=FP8_TOKEN, conv=FP8_TENSOR),
    "reference-fp8-mixed": Mix(linear=FP8_TOKEN, conv=FP8_TENSOR, error=0.85),
    "reference-w4a8": Mix(linear=W4A8, conv=W8A8_STATIC),
}


def simulated() -> list[System]:
    """A system for each mix."""
    return [System(name=name, open=_open(mix)) for name, mix in MIXES.items()]


def _open(mix: Mix) -> Callable[[Case], Opened]:
    def open_mix(case: Case) -> Opened:
        job = prepare(
            open_as(case.base, "base", None),
            open_as(case.refiner, "refiner", None),
            target=_Card(),
            recipe=recipe_of(mix),
            calibration_size=None,
            progress=Silent(),
        )
        with tempfile.TemporaryDirectory() as work:
            lowering = _lowering(job, Path(work))
            runners = torch_runners(case.components)
            size = sum(_round(lowering, job, name, runner, mix.error) for name, runner in runners.items())
        return Opened(runners=runners, size_bytes=int(size))

    return open_mix


def recipe_of(mix: Mix) -> Recipe:
    """The recipe `int8-weight` with other formats in the U-Nets, and no ladder but to half precision."""
    weights = RECIPES["int8-weight"]
    kept = [rule for rule in RECIPES["int8"].rules[Role.UNET] if rule.format == KEEP]
    rules = (
        *kept,
        Rule(kind=Kind.CONV, pattern=".*", format=mix.conv),
        Rule(kind=Kind.LINEAR, pattern=".*", format=mix.linear),
    )
    ladder = {Kind.LINEAR: (mix.linear, W8), Kind.CONV: (mix.conv, W8)}
    return replace(weights, rules={**weights.rules, Role.UNET: rules}, ladder={} if mix.error is None else ladder)


def _lowering(job: Job, work: Path) -> Lowering:
    store = ReferenceStore(work, "benchmark")
    reference = run_reference(
        models_of(job.assembly), tokenizers_of(job), job.assembly, job.recipe.calibration, job.size, store, Silent()
    )
    return Lowering(job, lambda: reference, None, work / "smoothing")


def _round(lowering: Lowering, job: Job, name: str, runner: TorchRunner, error: float | None) -> float:
    """Round the layers of one module in place; bytes of its weights."""
    component, recipe = job.assembly.components[name], job.recipes[name]
    measured, seen = lowering.measured(component)
    numbers = choose(measured, recipe, component.spec.role, seen, goal=1.0)
    if error is not None and component.spec.role is Role.UNET:
        goal = error * measured.estimate(numbers) / HEADROOM
        numbers = choose(measured, recipe, component.spec.role, seen, goal=goal)
    weights = lowering.weights(component)
    state = {key: weights.tensor(key).float() for key in runner.module.state_dict()}
    runner.module.load_state_dict(state, assign=True)
    runner.module.requires_grad_(False)
    size = sum(4.0 * tensor.numel() for tensor in state.values())
    for layer_name, layer in runner.module.named_modules():
        kind = KINDS.get(type(layer))
        format = numbers.format(kind, layer_name) if kind is not None else KEEP
        if format.quantized and format.weight is not None and isinstance(layer.weight, torch.Tensor):
            shape = tuple(layer.weight.shape)
            size += format.weight.bytes_of(shape) - 4.0 * layer.weight.numel()
            _replace(layer, format, numbers, layer_name, seen.layers.get(layer_name))
    return size


def _replace(layer: Any, format: Format, numbers: Quantization, name: str, shown: LayerStatistics | None) -> None:
    """Weights that are rounded, and inputs that will be."""
    assert format.weight is not None
    static = numbers.ranges.get(name) if format.ranged else None
    matrix = layer.weight.flatten(1).numpy()
    folded = 1.0 if static is None else np.repeat(static.input_scale, matrix.shape[1] // len(static.input_scale))
    inputs, taps = numbers.sampled(name), math.prod(layer.weight.shape[2:])
    inputs = None if inputs is None else inputs / np.float32(folded)
    rounded = round_weight(matrix * folded, format.weight, inputs=inputs, taps=taps).dequantized() / folded
    layer.weight = nn.Parameter(torch.from_numpy(rounded.astype(np.float32)).view(layer.weight.shape), False)
    if static is not None:
        layer.register_forward_pre_hook(lambda _, x: (_static(x[0], static.input_scale, static.input_zero),))
        layer.register_forward_hook(lambda _, __, y: _static(y, static.output_scale, static.output_zero))
    elif format.activation is not None and shown is not None:
        amax = float(shown.input_size.max()) if format.static else None

        def taken(_: Any, x: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            rows = x[0] if isinstance(layer, nn.Linear) else x[0].movedim(1, -1)
            group = None if format.weight is None else format.weight.group
            assert format.activation is not None
            flat = round_inputs(rows.reshape(-1, rows.shape[-1]).numpy(), format.activation, group=group, amax=amax)
            back = torch.from_numpy(flat).view(rows.shape)
            return (back if isinstance(layer, nn.Linear) else back.movedim(-1, 1).contiguous(),)

        layer.register_forward_pre_hook(taken)


def _static(x: torch.Tensor, scale: np.ndarray, zero: int) -> torch.Tensor:
    steps = torch.from_numpy(scale).view(1, -1, 1, 1)
    return ((x / steps).round_().add_(zero).clamp_(0, 255) - zero) * steps
