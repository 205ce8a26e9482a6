"""What this GPU does at its best, measured with a library in the same run: the roofline that shares refer to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.timing import Stopwatch, measure

from ..report import Record
from .systems import DEVICE, normal

SIDE: Final = 8192
COPIED: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Operations a second by operand dtype, and bytes a second."""

    operations: Mapping[str, float]
    bandwidth: float

    def seconds(self, made: LaunchPlan) -> float | None:
        """The least time of a plan: its arithmetic or its traffic; None where its dtype could not be measured."""
        if missing := set(made.operations) - set(self.operations):
            sys.stderr.write(f"{made.op}: no measured peak of {', '.join(sorted(missing))}\n")
            return None
        arithmetic = sum(amount / self.operations[kind] for kind, amount in made.operations.items())
        return max(arithmetic, made.traffic / self.bandwidth)

    def records(self) -> list[Record]:
        """The peaks themselves."""
        found = [
            Record(case=f"peak_{kind}", system="library", metric="operations_per_second", value=rate, unit="1/s")
            for kind, rate in self.operations.items()
        ]
        rate = Record(case="peak_copy", system="library", metric="bytes_per_second", value=self.bandwidth, unit="B/s")
        return [*found, rate]


def measure_peaks(watch: Stopwatch, *, float8: bool) -> Peaks:
    """Measure large square products and a large copy; a dtype that fails is left out, with its reason on stderr."""
    a, b = normal(SIDE, SIDE, seed=0), normal(SIDE, SIDE, seed=1)
    eight = a.mul(40).clamp(-127, 127).to(torch.int8), b.mul(40).clamp(-127, 127).to(torch.int8)
    one = torch.ones((), device=DEVICE)
    products: dict[str, Callable[[], object]] = {
        "int8": lambda: torch._int_mm(eight[0], eight[1].T),
        "float16": lambda: a @ b.T,
        "bfloat16": _bfloat16(),
    }
    if float8:
        x, y = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
        products["float8_e4m3fn"] = lambda: torch._scaled_mm(x, y.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    rates = {}
    for kind, product in products.items():
        try:
            rates[kind] = 2 * SIDE**3 / measure([product], watch).seconds
        except RuntimeError as error:
            sys.stderr.write(f"peak of {kind}: not measured, {_first_line(error)}\n")
    source = torch.empty(COPIED, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return Peaks(operations=rates, bandwidth=2 * COPIED / measure([lambda: target.copy_(source)], watch).seconds)


def _bfloat16() -> Callable[[], object]:
    a, b = (normal(SIDE, SIDE, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    return lambda: a @ b.T


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
