"""Predictions held to what was measured on an H100: whole forwards, and kernels one by one. Nothing is fitted here.

Kernels of the first run were Triton's, for int8 products too; those are planned here by the rows for Triton's kernels,
so that the waves themselves are held, whose terms the GeForce cards share. Of the tiles of Hopper's own kernels, terms
were fitted to measurements of the same day, so their error says how well the fit carries over to more shapes.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from pocketxl.engine.program.calls import plan_of
from pocketxl.kernels.architecture import Architecture
from pocketxl.kernels.configs import lookup, trying
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.sdxl import Call, launch_plan
from pocketxl.kernels.sdxl_layers import UNetName

from .cases import cases, name
from .float16 import float16_seconds
from .gpus import GPUS
from .unet import at, unet_calls, unet_plans
from .waves import plan_seconds

RESULTS: Final = Path(__file__).parents[1] / "results"
H100: Final = GPUS["h100"]
# (file, case, model, size, batch) of our own forwards, by the GPU's clock.
FORWARDS: Final[tuple[tuple[str, str, UNetName, int, int], ...]] = (
    ("2026-11-26-gpu-int8-h100", "unet_base_1024_b2", "base", 1024, 2),
    ("2026-11-26-gpu-int8-h100", "unet_base_512_b2", "base", 512, 2),
    ("2026-11-26-gpu-int8-h100", "unet_base_1024_b8", "base", 1024, 8),
    ("2026-11-26-gpu-refiner-vae-h100", "unet_refiner_1024_b2", "refiner", 1024, 2),
)
PEERS: Final = ("torch-compile-fp16", "diffusers-fp16-graph")
FIRST_FORWARD: Final = "2026-11-26-gpu-first-run-h100"
FIRST: Final = "2026-11-26-kernels-first-run-h100"
TILES: Final = "2026-11-26-hopper-tiles-h100"
LINEAR: Final = re.compile(r"linear_m(\d+)_n(\d+)_k(\d+)_bias(True|False)_residual(True|False)")
GEGLU: Final = re.compile(r"geglu_m(\d+)_n(\d+)_k(\d+)")
IN_TRITON: Final = frozenset({"linear_w8a8", "geglu_linear_w8a8", "conv_w8a8"})
"""Ops whose kernels on Hopper are no longer those of the first run."""
WEIGHTS_ALONE: Final = frozenset({"linear_w4", "linear_w8", "conv_w4", "conv_w8"})
"""Ops that are no part of an int8 network."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Seconds of one thing, predicted and measured. `group`: what it counts among: forward, float16, or an op."""

    case: str
    group: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How much more was predicted than measured, as a share of the measured; negative: less."""
        return self.predicted / self.measured - 1


def held() -> Iterator[Held]:
    """Every comparison. Reads the results that lie beside the benchmarks."""
    yield from forwards()
    yield from peers()
    yield from first_kernels()
    yield from hopper_kernels()


def forwards() -> Iterator[Held]:
    """Our forwards as they were on that day, and the base's of the first run, whose int8 products were Triton's."""
    arch = H100.architecture
    for file, case, model, size, batch in FORWARDS:
        measured = _measured(file, "pocketxl-int8", "device_seconds")[case]
        plans = unet_plans(model, arch, size=size, batch=batch, by_rows=True)
        predicted = sum(plan_seconds(made, H100) for made in plans)
        yield Held(case=case, group="forward", predicted=predicted, measured=measured)
    case, sizes = "unet_base_1024_b2", at(size=1024, batch=2)
    measured = _measured(FIRST_FORWARD, "pocketxl-int8", "device_seconds")[case]
    calls = unet_calls("base", by_rows=True)
    plans = [in_triton(call.op, arch, partial(plan_of, call, sizes)) for call in calls]
    predicted = sum(plan_seconds(made, H100) for made in plans)
    yield Held(case=case, group="triton_forward", predicted=predicted, measured=measured)


def peers() -> Iterator[Held]:
    """The float16 libraries' forward: the model is of a program better tuned than either of them."""
    case = "unet_base_1024_b2"
    predicted = sum(float16_seconds("base", H100, size=1024, batch=2).values())
    for system in PEERS:
        measured = _measured("2026-11-26-gpu-peers-h100", system, "seconds")[case]
        yield Held(case=f"{case}_{system}", group="float16", predicted=predicted, measured=measured)


def first_kernels() -> Iterator[Held]:
    """Kernels of the int8 forward one by one, all in Triton."""
    measured, arch = _measured(FIRST, "pocketxl", "seconds"), H100.architecture
    for call in cases(quick=False):
        if (seconds := measured.get(name(call))) is not None and call.op not in WEIGHTS_ALONE:
            made = in_triton(call.op, arch, partial(launch_plan, call))
            yield Held(case=name(call), group=f"triton_{call.op}", predicted=plan_seconds(made, H100), measured=seconds)


def hopper_kernels() -> Iterator[Held]:
    """Int8 products by Hopper's own kernels, each by the tile that the table chooses."""
    for case, measured in _measured(TILES, "chosen", "seconds").items():
        if (found := LINEAR.fullmatch(case)) is not None:
            m, n, k = map(int, found.groups()[:3])
            bias, residual = (flag == "True" for flag in found.groups()[3:])
            shape = {"m": m, "n": n, "k": k, "bias": bias, "residual": residual}
            call = Call(op="linear_w8a8", shape=shape, count=1)
        elif (found := GEGLU.fullmatch(case)) is not None:
            m, n, k = map(int, found.groups())
            call = Call(op="geglu_linear_w8a8", shape={"m": m, "n": n, "k": k}, count=1)
        else:
            continue
        predicted = plan_seconds(launch_plan(call, H100.architecture), H100)
        yield Held(case=case, group=f"hopper_{call.op}", predicted=predicted, measured=measured)


def in_triton(op: str, arch: Architecture, made: Callable[[Architecture], LaunchPlan]) -> LaunchPlan:
    """The plan by the table's row for Triton's kernel, which names no tile, where Hopper has a kernel of its own.

    No tile of a linear layer was shared out in the first run, as on a card of one multiprocessor.
    """
    if op not in IN_TRITON:
        return made(arch)
    with trying(op) as trial:
        made(arch)
    rows, shape = trial.asked[0]
    by_then = replace(arch, multiprocessors=1) if op == "linear_w8a8" else arch
    with trying(op, lookup(op, arch, rows, **{key: value for key, value in shape.items() if key == "inputs"})):
        return made(by_then)


def _measured(file: str, system: str, metric: str) -> Mapping[str, float]:
    """Case → value of a result file."""
    document: dict[str, Any] = json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))
    found = (r for r in document["records"] if (r["system"], r["metric"]) == (system, metric))
    return {record["case"]: record["value"] for record in found}
