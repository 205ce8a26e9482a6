"""How long a system takes on a case, in what memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from .systems import Ready, run_steps

WARM_UP: Final = 3
"""Predictions before any is timed: a compiler's graphs are recorded in the second and used from the third on."""
LEAST, MOST, ENOUGH = 3, 30, 2.0
"""Timed calls at least and at most, and the seconds of them that are enough."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Medians in seconds. `start`: what the first calls took beyond themselves. `device`: see `Ready.device_seconds`.

    `result`: on the host.
    """

    seconds: float
    start: float
    device: float | None
    peak_device_bytes: int | None
    device_used_bytes: int | None
    result: Tensor


class Memory:
    """What a system takes of the GPU from now on. Without one it is not known."""

    def __init__(self, device: str) -> None:
        self._on = device == "cuda"
        self.empty()
        self._allocated = torch.cuda.memory_allocated() if self._on else 0
        self._used = self._driver() if self._on else 0

    def empty(self) -> None:
        """Give back what nobody has any more."""
        gc.collect()
        if self._on:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def of(self, work: Callable[[], Any], *, torchs: bool) -> tuple[Any, int | None, int | None]:
        """The result of `work`, bytes at its peak, and what the driver counts after it, beyond those of the beginning.

        `torchs`: what is counted are torch's tensors, and what graphs keep for theirs; else all is the driver's count.
        """
        if not self._on:
            return work(), None, None
        self.empty()
        kept = torch.cuda.memory_reserved()  # a graph's pool is reserved, and not among what is allocated at a replay
        torch.cuda.reset_peak_memory_stats()
        result = work()
        torch.cuda.synchronize()
        more = self._driver() - self._used
        # What a system before had may have been given back meanwhile; then it is not known what this one took.
        used = more if more >= 0 else None
        peak = max(torch.cuda.max_memory_allocated(), kept) - self._allocated if torchs else used
        return result, peak, used

    @staticmethod
    def _driver() -> int:
        free, total = torch.cuda.mem_get_info()
        return total - free


def measure(ready: Ready, steps: int, memory: Memory, *, device: str, on_the_host: bool) -> Measured:
    """Warm up, time whole calls until that is enough, then look at memory and result."""
    on_gpu = device == "cuda"

    def work() -> Any:
        return run_steps(ready, steps)

    begin = time.perf_counter()
    calls = max(1, WARM_UP // steps)
    for _ in range(calls):
        work()
    if on_gpu:
        torch.cuda.synchronize()
    warm_up = time.perf_counter() - begin
    # What the host holds is there once the call returns; what torch computes is there once the GPU says so.
    seconds = _seconds_by_events if on_gpu and not on_the_host else _seconds_by_clock
    taken: list[float] = []
    inside: list[float] = []
    while len(taken) < LEAST or (len(taken) < MOST and sum(taken) < ENOUGH):
        taken.append(seconds(work))
        if ready.device_seconds is not None and steps == 1:
            inside.append(ready.device_seconds())
    result, peak, used = memory.of(work, torchs=not on_the_host)
    median = statistics.median(taken)
    return Measured(
        seconds=median,
        start=max(0.0, warm_up - calls * median),
        device=statistics.median(inside) if inside else None,
        peak_device_bytes=peak,
        device_used_bytes=used,
        result=result.cpu() if isinstance(result, Tensor) else torch.from_numpy(np.asarray(result)),
    )


def _seconds_by_clock(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _seconds_by_events(work: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
