"""What it costs to stream a component from the disk: `python -m benchmarks.streaming ENGINE [--component base/unet]`.

A call as a whole and one in segments, each in a process of its own after the file has been read once: seconds of
loading and of a call, processor time of both, and the resident set's high-water mark against what the plan reckons
with. The outputs must be equal to the bit.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine.errors import PocketXLError
from pocketxl.engine.folder.manifest import read_manifest

from .report import Record, finish

HOW = ("whole", "streamed")
TOKENS = 77


def main() -> None:
    """Measure every size and print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--component", default="base/unet")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="sides of square pictures")
    parser.add_argument("--calls", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        how, side = args.case.split("-")
        print(json.dumps(measure(args.engine, args.component, how, int(side), args.calls)))
        return
    try:
        entry = read_manifest(args.engine).components.get(args.component)
    except PocketXLError as error:
        parser.error(str(error))
    if entry is None or entry.streaming is None:
        parser.error(f"{args.engine} has no component {args.component} with segments")
    records = []
    for side in args.sizes:
        found = {how: _child(args, f"{how}-{side}") for how in HOW}
        if len({each["sha256"] for each in found.values()}) > 1:
            raise SystemExit(f"{args.component} at {side}: the outputs differ")
        for how, each in found.items():
            records += _records(f"{args.component.replace('/', '_')}_{side}", f"pocketxl-{how}", each)
    finish("streaming", records)


def measure(engine: Path, component: str, how: str, side: int, calls: int) -> dict[str, Any]:
    """Load, then call so often: the fastest call's figures, and the peak of all."""
    from pocketxl.engine.memory.resident import resident_peak
    from pocketxl.engine.runners import open_runners
    from pocketxl.engine.runners.base import Sizes, Streams, call

    runner = open_runners(engine, read_manifest(engine))[component]
    assert isinstance(runner, Streams)
    sizes = Sizes(rows=1, tokens=TOKENS, steps=1, pixels=side * side)
    footprint = runner.streamed(sizes) if how == "streamed" else runner.footprint(sizes)
    assert footprint is not None, "main has looked"
    (runner.load_streamed if how == "streamed" else runner.load)()  # hashes every file: from now on they are cached
    runner.release()
    began, used = time.perf_counter(), time.process_time()
    (runner.load_streamed if how == "streamed" else runner.load)()
    loaded = {"load": time.perf_counter() - began, "load_processor": time.process_time() - used}
    lengths = {"batch": 1, "tokens": TOKENS, "steps": 1, "height": side // 8, "width": side // 8}
    rng = np.random.default_rng(0)
    inputs = {
        t.name: rng.standard_normal([lengths[d] if isinstance(d, str) else d for d in t.shape]).astype(np.float32)
        for t in runner.spec.inputs
    }
    took = []
    for _ in range(calls):
        began, used = time.perf_counter(), time.process_time()
        outputs = call(runner, inputs)
        took.append((time.perf_counter() - began, time.process_time() - used))
    seconds, processor = (min(column) for column in zip(*took, strict=True))
    digest = hashlib.sha256(b"".join(outputs[name].tobytes() for name in sorted(outputs))).hexdigest()
    planned = runner.device.overhead["host"] + footprint.weights + footprint.working
    planned += sum(array.nbytes for array in inputs.values())
    peak = {"peak": resident_peak() or 0, "planned": planned}
    return {**loaded, **peak, "call": seconds, "processor": processor, "sha256": digest}


def _child(args: argparse.Namespace, case: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.streaming", str(args.engine), "--component", args.component]
    command += ["--calls", str(args.calls), "--case", case]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    sys.stderr.write(f"{args.component} {case}: {found}\n")
    return found


def _records(case: str, system: str, found: Mapping[str, Any]) -> list[Record]:
    rows = (
        (f"{case}_load", "seconds", found["load"], "s"),
        (f"{case}_load", "processor_seconds", found["load_processor"], "s"),
        (case, "seconds", found["call"], "s"),
        (case, "processor_seconds", found["processor"], "s"),
        (case, "peak_rss_bytes", found["peak"], "B"),
        (case, "predicted_peak_bytes", found["planned"], "B"),
    )
    return [
        Record(case=name, system=system, metric=metric, value=value, unit=unit) for name, metric, value, unit in rows
    ]


if __name__ == "__main__":
    main()
