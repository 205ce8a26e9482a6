"""How long GPU work takes: replays of one CUDA graph over inputs that rotate, so that nothing waits in the L2 cache.

A graph holds one run of the work for every copy of its inputs; the time of a run is the graph's, divided by the copies.
The host takes no part in a replay, so what is measured is what an engine that replays graphs would see.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

COPIES_AT_MOST: Final = 128
"""A graph of more runs takes longer to capture than it tells."""


class Stopwatch(Protocol):
    """What records work and times its replays: `CudaGraphs`, or a test's."""

    def record(self, work: Sequence[Callable[[], object]]) -> Callable[[], object]:
        """Run `work` once for real and return what repeats it; its results stay in memory."""
        ...

    def seconds(self, replay: Callable[[], object]) -> float:
        """Time of one replay."""
        ...


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one run: the median over replays, and the quartiles."""

    seconds: float
    lower: float
    upper: float
    replays: int


def copies_for(size_bytes: int, cache_bytes: int) -> int:
    """How many copies of buffers of `size_bytes` are more than twice a cache of `cache_bytes`; at least two."""
    return max(2, min(COPIES_AT_MOST, 2 * cache_bytes // max(size_bytes, 1) + 1))


def measure(
    work: Sequence[Callable[[], object]],
    watch: Stopwatch,
    *,
    enough: float = 0.1,
    least: int = 7,
    most: int = 50,
) -> Timing:
    """Time one run of `work`, whose items do the same on different memory.

    `work`: one function per copy of the inputs. `watch`: records and times. `enough`: seconds of replays after which to
    stop. `least`: replays at least. `most`: replays at most.
    """
    replay = watch.record(work)
    watch.seconds(replay)  # clocks rise, caches are as they stay
    taken: list[float] = []
    while len(taken) < least or (len(taken) < most and sum(taken) < enough):
        taken.append(watch.seconds(replay))
    each = sorted(value / len(work) for value in taken)
    lower, _, upper = statistics.quantiles(each, n=4)
    return Timing(seconds=statistics.median(each), lower=lower, upper=upper, replays=len(each))


class CudaGraphs:
    """Records work as a CUDA graph on the current device."""

    def record(self, work: Sequence[Callable[[], object]]) -> Callable[[], object]:
        """Warm up, then capture every item once.

        Triton compiles at a first run and cuBLAS chooses an algorithm, neither of which may happen during a capture.
        """
        import torch

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.no_grad():
            for _ in range(3):
                work[0]()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        results: list[object] = []
        # A compiled kernel that Python frees unloads its module, which kills a capture under way.
        gc.collect()
        gc.disable()
        try:
            with torch.no_grad(), torch.cuda.graph(graph):
                # Kept, so that no run writes where the one before it wrote.
                results.extend(item() for item in work)
        finally:
            gc.enable()

        def replay() -> object:
            graph.replay()
            return results

        return replay

    def seconds(self, replay: Callable[[], object]) -> float:
        """Time between two events around the replay."""
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3
