"""Check and time every case on the GPU at hand, with its peers, until all are done or the time is up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch._library.triton import set_wrap_triton_enabled

from pocketxl.kernels.architecture import Architecture
from pocketxl.kernels.binaries import compile_all
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.sdxl import Call, launch_plan
from pocketxl.kernels.timing import Stopwatch, Timing, copies_for, measure

from ..report import Record
from .blocks import blocks
from .cases import name
from .check import check
from .peaks import Peaks, measure_peaks
from .peers import peers
from .systems import System, ours, ours_with_quantization

OURS = "pocketxl"
STRIDE_OF_SEEDS = 1000


def run(calls: Iterable[Call], arch: Architecture, watch: Stopwatch, *, seconds: float, jobs: int) -> list[Record]:
    """Everything: compile, peaks, cases, blocks; what does not fit `seconds` is named on standard error.

    Raises `WrongResultError`: an op is wrong; nothing is timed after that.
    """
    ends = time.monotonic() + seconds
    wanted = [(call, launch_plan(call, arch)) for call in calls]
    # Fills Triton's cache from all cores; the first run of each kernel then finds its binary there.
    compile_all((variant for _, made in wanted for variant in made.variants), arch, jobs=jobs)
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    peaks = measure_peaks(watch, float8=arch.fp8)
    records = peaks.records()
    left_out = []
    with set_wrap_triton_enabled(False):  # nothing traces our launches here: they go straight to Triton
        for call, made in wanted:
            if time.monotonic() > ends:
                left_out.append(name(call))
                continue
            records += time_case(call, made, arch, watch, peaks, cache)
            torch.cuda.empty_cache()
        for case, systems in blocks(arch).items():
            if time.monotonic() > ends:
                left_out.append(case)
                continue
            records += time_systems(case, systems, watch, copies=4)
    if left_out:
        sys.stderr.write(f"time is up; not timed: {', '.join(left_out)}\n")
    return records


def time_case(
    call: Call, made: LaunchPlan, arch: Architecture, watch: Stopwatch, peaks: Peaks, cache: int
) -> list[Record]:
    """One call: right or not, then our time, its share of the roofline, and the peers' times."""
    case = name(call)
    try:
        error = check(call, made)
    except torch.OutOfMemoryError as problem:
        sys.stderr.write(f"{case}: not checked and so not timed, {first_line(problem)}\n")
        return []
    systems: dict[str, System] = {OURS: ours(made)}
    if call.op == "linear_w8a8":
        systems[f"{OURS}+quantize"] = ours_with_quantization(call, arch)
        if arch.fp8:
            eight = Call(op=call.op, shape={**call.shape, "dtype": "float8_e4m3fn"}, count=call.count)
            systems[f"{OURS}-float8"] = ours(launch_plan(eight, arch))
    systems |= peers(call, arch)
    copies = copies_for(sum(buffer.size_bytes for buffer in (*made.inputs.values(), *made.outputs.values())), cache)
    records = time_systems(case, systems, watch, copies=copies)
    records.append(Record(case=case, system=OURS, metric="relative_error", value=error, unit="1"))
    best = peaks.seconds(made)
    mine = [record for record in records if record.system == OURS and record.metric == "seconds"]
    if best is not None and mine:
        share = best / mine[0].value
        records.append(Record(case=case, system=OURS, metric="roofline_share", value=share, unit="1"))
    return records


def time_systems(case: str, systems: Mapping[str, System], watch: Stopwatch, *, copies: int) -> list[Record]:
    """Seconds of every system on one case; one that fails is absent, with the reason on standard error."""
    records = []
    for system, make in systems.items():

        def timed(make: System = make) -> Timing:
            return measure([make(STRIDE_OF_SEEDS * i) for i in range(copies)], watch, enough=0.05)

        timing = attempt(f"{case} {system}", timed)
        if timing is None:
            continue
        sys.stderr.write(f"{case} {system}: {timing.seconds * 1e6:.1f} us ({timing.replays} replays)\n")
        records.append(Record(case=case, system=system, metric="seconds", value=timing.seconds, unit="s"))
    return records


def attempt(what: str, action: Callable[[], Timing]) -> Timing | None:
    """The result of `action`; None, and a line on standard error, where the system cannot do it."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - peers raise what their libraries raise
        sys.stderr.write(f"{what}: absent, {first_line(error)}\n")
        return None


def first_line(error: Exception) -> str:
    """Enough of an error for a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
