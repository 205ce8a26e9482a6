"""What waiting threads cost, and two pipelines at once: `python -m benchmarks.threads`.

The bundled base U-Net with threads that sleep while they wait (as engines are run), and that spin: the time and
processor time of a forward at 128² and 512², and what a session burns after its last call. Then a whole picture in
each of two processes, one after the other and both at once. The ways take turns; medians are told, beside the least
processor time, which other work on the machine hardly touches.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pocketxl.engine import Pipeline
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners.cores import available_cores
from pocketxl.engine.runners.ort_session import import_onnxruntime, session_options

from .report import Record, finish

COMPONENT = "base/unet"
SPINNING = "session.intra_op.allow_spinning"
WAYS = {"sleep": {SPINNING: "0"}, "spin": {SPINNING: "1"}}
FORWARDS = {128: 60, 512: 6}
"""Picture's side → forwards in a row."""
PICTURES = {128: 30, 512: 4}
"""Picture's side → steps."""
IDLE_SECONDS = 3.0
Clocked = tuple[float, float]
"""Seconds by the clock, and of the processor."""


def clocked(work: Callable[[], object], calls: int = 1) -> Clocked:
    """What one of `calls` calls took."""
    begin, spent = time.perf_counter(), time.process_time()
    for _ in range(calls):
        work()
    return (time.perf_counter() - begin) / calls, (time.process_time() - spent) / calls


def session(way: str) -> Any:
    """The component with the threads that are the default."""
    ort = import_onnxruntime()
    options = session_options(ort, available_cores(), patterns=True)
    for key, value in WAYS[way].items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(FOLDER / COMPONENT / "model.onnx"), options, providers=["CPUExecutionProvider"])


def inputs(side: int) -> dict[str, np.ndarray]:
    """Noise for every input of a picture of that side."""
    random = np.random.default_rng(0)
    sizes = {"batch": 1, "tokens": 77, "height": side // 8, "width": side // 8}
    return {
        tensor.name: random.standard_normal([n if isinstance(n, int) else sizes[n] for n in tensor.shape]).astype(
            np.float32
        )
        for tensor in read_manifest(FOLDER).components[COMPONENT].spec.inputs
    }


def waiting(rounds: int) -> Iterator[Record]:
    """Forwards, and what comes after them."""
    sessions = {way: session(way) for way in WAYS}
    for side, calls in FORWARDS.items():
        feeds = inputs(side)
        taken: dict[str, list[Clocked]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, one in sessions.items():
                one.run(None, feeds)
                taken[way].append(clocked(lambda one=one, feeds=feeds: one.run(None, feeds), calls))  # type: ignore[misc]
        for way in WAYS:
            yield from _both(f"miniature_unet_{side}", way, taken[way])
    for way, one in sessions.items():
        one.run(None, inputs(128))
        _, spent = clocked(lambda: time.sleep(IDLE_SECONDS))
        yield Record(case="idle_after_a_call", system=way, metric="processor_seconds", value=spent, unit="s")


def together(rounds: int) -> Iterator[Record]:
    """Two processes with a pipeline each."""
    for side, steps in PICTURES.items():
        command = [sys.executable, "-m", "benchmarks.threads", "--picture", str(side), str(steps)]
        two = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
            for _ in range(2)
        ]
        taken: dict[str, list[Clocked]] = {"one_after_the_other": [], "at_once": []}
        _ask(*two)  # loaded
        for _ in range(rounds):
            parts = [_ask(one) for one in two]
            taken["one_after_the_other"].append((sum(p[0] for p in parts), sum(p[1] for p in parts)))
            taken["at_once"].append(_ask(*two))
        for one in two:
            one.communicate()
        for way, found in taken.items():
            yield from _both(f"two_pictures_{side}", way, found)


def _ask(*processes: Any) -> Clocked:
    """Seconds until all have made a picture, and what they spent."""
    begin = time.perf_counter()
    for one in processes:
        one.stdin.write("\n")
    spent = sum(json.loads(one.stdout.readline()) for one in processes)
    return time.perf_counter() - begin, spent


def serve(side: int, steps: int) -> None:
    """Make a picture for every line that comes in, and tell what it took of the processor."""
    pipe = Pipeline.load()
    for _ in sys.stdin:
        _, spent = clocked(
            lambda: pipe("a rocket", num_inference_steps=steps, seed=1, width=side, height=side, output_type="np")
        )
        print(json.dumps(spent), flush=True)


def _both(case: str, system: str, taken: list[Clocked]) -> Iterator[Record]:
    seconds, spent = statistics.median(t for t, _ in taken), min(s for _, s in taken)
    sys.stderr.write(f"{case} {system}: {seconds:.4f} s, {spent:.4f} s of the processor\n")
    yield Record(case=case, system=system, metric="seconds", value=seconds, unit="s")
    yield Record(case=case, system=system, metric="processor_seconds", value=spent, unit="s")


def main() -> None:
    """Measure both and print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--picture", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.picture:
        serve(*args.picture)
        return
    records = [*waiting(args.rounds), *together(args.rounds)]
    # What else the machine did says how far times can be trusted.
    finish("threads", records, extra={"load_average": os.getloadavg() if hasattr(os, "getloadavg") else None})


if __name__ == "__main__":
    main()
