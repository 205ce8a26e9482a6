"""What `pocketxl prepare` gains: `python -m benchmarks.prepared ENGINE [--size 512] [--runs 3] [--threads 2]`.

Loads each component that can be prepared, and calls it, as it was built and as it is prepared, in fresh processes that
take turns; then whole processes from their start to the first step of a picture. Both find their files in the system's
page cache. The engine folder must be writable; what is prepared is removed at the end.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine import Pipeline, forget_prepared, prepare_engine
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.progress import ProgressEvent
from pocketxl.engine.runners import open_runners
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.ort import OrtRunner
from pocketxl.engine.runners.ort_session import import_onnxruntime

from .report import Record, finish, peak_rss_bytes

SYSTEMS = ("pocketxl", "pocketxl-prepared")
UNITS: Mapping[str, str] = {"seconds": "s", "cpu_seconds": "s", "prepare_seconds": "s"}
PICTURE = "first_step"
_IN_THE_PROCESS = "--in-the-process"


def main() -> None:
    """Measure and print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepared", description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(_IN_THE_PROCESS, nargs=3, metavar=("CASE", "SYSTEM", "BEGUN"))
    args = parser.parse_args()
    if args.in_the_process:
        case, system, begun = args.in_the_process
        if system == SYSTEMS[0]:
            OrtRunner.prepares = lambda self: False  # type: ignore[method-assign]
        found = picture(args, float(begun)) if case == PICTURE else component(args, case)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    forget_prepared(args.engine)
    made = dict(prepare_engine(args.engine))
    records = []
    for name, one in made.items():
        for metric, value in (("size_bytes", one.bytes), ("prepare_seconds", one.seconds)):
            records.append(record(name, SYSTEMS[1], metric, value))
    for case in (*made, PICTURE):
        rounds = [{system: measured(args, case, system) for system in SYSTEMS} for _ in range(args.runs + 1)][1:]
        digests = {found.pop("output") for one in rounds for found in one.values()}
        if len(digests) > 1:
            raise SystemExit(f"{case}: what was prepared gives other numbers")
        for system in SYSTEMS:
            for metric in rounds[0][system]:
                value = statistics.median(one[system][metric] for one in rounds)
                where, _, what = metric.rpartition(" ")
                records.append(record(f"{case} {where}".strip(), system, what, value))
    forget_prepared(args.engine)
    for figure in records:
        sys.stderr.write(f"{figure.case} {figure.system} {figure.metric}: {figure.value:.3f} {figure.unit}\n")
    finish("prepared", records)


def record(case: str, system: str, metric: str, value: float) -> Record:
    """With the metric's unit: bytes where it is no other."""
    return Record(case=case, system=system, metric=metric, value=float(value), unit=UNITS.get(metric, "B"))


def measured(args: argparse.Namespace, case: str, system: str) -> dict[str, Any]:
    """What a fresh process says."""
    command = [sys.executable, "-m", "benchmarks.prepared", str(args.engine), "--size", str(args.size)]
    command += ["--threads", str(args.threads), _IN_THE_PROCESS, case, system, str(time.time())]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def component(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Load one and call it three times."""
    runner = open_runners(args.engine, read_manifest(args.engine), threads=args.threads)[name]
    import_onnxruntime()
    before, started, busy = resident(), time.perf_counter(), time.process_time()
    runner.load()
    seconds, core, after = time.perf_counter() - started, time.process_time() - busy, resident()
    sizes = {"tokens": 77, "height": args.size // 8, "width": args.size // 8}
    random = np.random.default_rng(0)
    inputs = {}
    for tensor in runner.spec.inputs:
        values = random.standard_normal([sizes.get(d, 1) if isinstance(d, str) else d for d in tensor.shape])
        inputs[tensor.name] = (values if tensor.dtype.startswith("float") else 9 * abs(values)).astype(tensor.dtype)
    calls = []
    for _ in range(3):
        started = time.perf_counter()
        outputs = runner(inputs)
        calls.append(time.perf_counter() - started)
    took = runner.footprint(Sizes(pixels=args.size**2, rows=1, tokens=77, steps=1))
    return {
        "load seconds": seconds,
        "load cpu_seconds": core,
        "load anonymous_bytes": after["RssAnon"] - before["RssAnon"],
        "load file_bytes": after["RssFile"] - before["RssFile"],
        "call seconds": statistics.median(calls),
        "call peak_rss_bytes": peak_rss_bytes() - before["VmRSS"],
        "call planned_bytes": took.weights + took.working,
        "output": digest_of(*(np.asarray(value) for value in outputs.values())),
    }


def picture(args: argparse.Namespace, begun: float) -> dict[str, Any]:
    """From the start of the process until the first step begins, and until it is done; everything stays loaded."""
    at: dict[str, float] = {}

    def progress(event: ProgressEvent) -> None:
        now = time.time() - begun
        if event.stage == "load" and event.done and event.detail.endswith("/unet"):
            at.setdefault("begins seconds", now)
        if event.stage == "denoise" and event.step == 1:
            at.setdefault("done seconds", now)

    with Pipeline.load(args.engine, threads=args.threads) as pipe:
        settings: dict[str, Any] = {"width": args.size, "height": args.size, "guidance_scale": 1.0, "seed": 7}
        made = pipe("a red apple", num_inference_steps=2, output_type="np", progress=progress, **settings)
        plan = pipe.plan("a red apple", num_inference_steps=2, width=args.size, height=args.size, guidance_scale=1.0)
    return {
        **at,
        "picture peak_rss_bytes": peak_rss_bytes(),
        "picture planned_bytes": plan.peak_bytes,
        "output": digest_of(np.asarray(made.images)),
    }


def digest_of(*arrays: np.ndarray) -> str:
    """Equal for what is equal to the bit."""
    return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def resident() -> dict[str, int]:
    """The process's resident bytes by kind, as Linux tells them."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words and words[0].startswith(("Rss", "VmRSS"))
    }


if __name__ == "__main__":
    main()
