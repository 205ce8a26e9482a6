"""One job in a process of its own: `python -m benchmarks.cpu.child JOB`; its last line is what it measured."""

import time

STARTED = time.perf_counter()

import json  # noqa: E402 - the clock of a cold start begins before anything is imported
import statistics  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import asdict  # noqa: E402
from typing import Any, Final  # noqa: E402

import numpy as np  # noqa: E402

from ..report import peak_rss_bytes  # noqa: E402
from .inputs import feeds_of  # noqa: E402
from .job import AbsentError, Job, Measured  # noqa: E402
from .systems import SYSTEMS, Pictures  # noqa: E402

LEAST, MOST, ENOUGH = 3, 30, 2.0
"""Timed calls at least and at most, and the seconds of them that are enough."""


def work(job: Job) -> Measured | None:
    """Do it; None for what is not measured. Raises `AbsentError`, and what the system's library raises."""
    row = {system.name: system for system in SYSTEMS}[job.system]
    system, case = row.open(job.model), job.of
    if job.deed == "prepare":
        for network in job.model.networks(case):
            system.prepare(network)
        return None
    if job.deed == "first":
        system.forget()
    if case.kind == "picture":
        result, load_seconds = system.picture(case) if isinstance(system, Pictures) else _picture(system, job)
        seconds, calls = time.perf_counter() - STARTED, 1
    else:
        feeds = feeds_of(job.model, case)
        begin = time.perf_counter()
        call = system.load("vae" if case.kind == "vae" else "base", feeds)
        load_seconds = time.perf_counter() - begin
        result, seconds, calls = timed(lambda: call(feeds))
    job.result.parent.mkdir(parents=True, exist_ok=True)
    np.save(job.result, np.asarray(result, np.float32))
    return Measured(seconds=seconds, load_seconds=load_seconds, peak_rss_bytes=peak_rss_bytes(), calls=calls)


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, int]:
    """The result of a warm-up, then the median of as many calls as are enough, and their number."""
    result = call()
    taken: list[float] = []
    while len(taken) < LEAST or (len(taken) < MOST and sum(taken) < ENOUGH):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return result, statistics.median(taken), len(taken)


def _picture(system: Any, job: Job) -> tuple[np.ndarray, float]:
    from .pictures import picture

    return picture(system, job.model, job.of)


FAILED: Final = 3
"""The exit status of a job that could not be done; its last line says why."""


def main() -> int:
    """Do the job of the command line."""
    try:
        measured = work(Job.decode(sys.argv[1]))
    except AbsentError as error:
        found: dict[str, object] = {"absent": str(error)}
    except Exception as error:  # noqa: BLE001 - systems raise what their libraries raise
        found = {"absent": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    else:
        found = {} if measured is None else asdict(measured)
    sys.stdout.flush()
    print("\n" + json.dumps(found), flush=True)
    return FAILED if "absent" in found else 0


if __name__ == "__main__":
    sys.exit(main())
