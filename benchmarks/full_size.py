"""Full-size SDXL base + refiner on this machine's processor: `python -m benchmarks.full_size WORK`.

Writes a random-weight checkpoint in float16 to the folder WORK (12 GB; kept, so that a second run starts at once),
builds the `int8` engine from it, and makes pictures end to end with PocketXL and with diffusers in bfloat16: the same
prompt, seed, steps and guidance. Each runs in a process of its own, one after the other; peaks are theirs. Random
weights make noise for pictures, but every byte and every operation is that of the real model.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .random_checkpoint import write_checkpoint
from .report import Record, finish

STEPS = {512: 6, 1024: 3}
"""With a hand-off at 0.8 the last step is the refiner's: 5 + 1 and 2 + 1."""


def main() -> None:
    """Build, run both systems at every size, print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for checkpoint and engine, about 20 GB")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--no-peer", action="store_true", help="without diffusers")
    args = parser.parse_args()
    for kind in ("base", "refiner"):
        if not (args.work / kind / "model_index.json").exists():
            write_checkpoint(args.work, kind)
    records = build_records(child("build", args.work))
    for size in args.sizes:
        ours = child("pocketxl", args.work, size, STEPS.get(size, 3))
        records += run_records(f"sdxl_{size}", "pocketxl-int8", ours)
        if args.no_peer:
            continue
        theirs = child("diffusers", args.work, size, STEPS.get(size, 3))
        records += run_records(f"sdxl_{size}", "diffusers-bf16", theirs)
        error = Record(case=f"sdxl_{size}", system="pocketxl-int8", metric="relative_error_to_diffusers",
                       value=relative_error(ours["latents"], theirs["latents"]), unit="1")  # fmt: skip
        records.append(error)
        summarise(size, ours, theirs, error.value)
    finish("full_size", records)


def child(system: str, work: Path, size: int = 0, steps: int = 0) -> dict[str, Any]:
    """Run one measurement in a fresh process; its last line is its result."""
    command = [sys.executable, "-m", "benchmarks.full_size_child", system, str(work), str(size), str(steps)]
    sys.stderr.write(f"== {' '.join(command[2:])}\n")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def build_records(result: dict[str, Any]) -> list[Record]:
    """What the gate measured and the engine's size; time and peak of the build, unless it was cached."""
    records = [
        Record(case=name, system="pocketxl-int8", metric="relative_error", value=value, unit="1")
        for name, value in result["relative_errors"].items()
    ]
    records.append(_bytes("engine", "size_bytes", result["size_bytes"]))
    if not result["cached"]:
        records.append(
            Record(case="build", system="pocketxl-int8", metric="seconds", value=result["seconds"], unit="s")
        )
        records.append(_bytes("build", "peak_rss_bytes", result["peak_rss_bytes"]))
    return records


def run_records(case: str, system: str, result: dict[str, Any]) -> list[Record]:
    """Seconds of each stage and of a step (median), and the peak."""
    records = [
        Record(case=f"{case}_{stage}", system=system, metric="seconds", value=seconds, unit="s")
        for stage, seconds in result["stages"].items()
    ]
    for kind, times in result["steps"].items():
        value = statistics.median(times)
        records.append(Record(case=f"{case}_{kind}_step", system=system, metric="seconds", value=value, unit="s"))
    records.append(Record(case=case, system=system, metric="peak_rss_bytes", value=result["peak_rss_bytes"], unit="B"))
    if "predicted_peak_bytes" in result:
        records.append(_bytes(case, "predicted_peak_bytes", result["predicted_peak_bytes"]))
    return records


def relative_error(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """|ours - theirs| / |theirs| (L2) of the latents that the base hands over."""
    difference = sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True))
    return float((difference / sum(b * b for b in theirs)) ** 0.5)


def summarise(size: int, ours: dict[str, Any], theirs: dict[str, Any], error: float) -> None:
    """One line for people."""
    for kind in ours["steps"]:
        a, b = statistics.median(ours["steps"][kind]), statistics.median(theirs["steps"][kind])
        sys.stderr.write(f"{size} {kind} step: {a:.1f} s against {b:.1f} s, ratio {b / a:.2f}\n")
    peaks = (ours["peak_rss_bytes"] / 1e9, theirs["peak_rss_bytes"] / 1e9)
    sys.stderr.write(f"{size} peak: {peaks[0]:.1f} GB against {peaks[1]:.1f} GB; latents off by {error:.3f}\n")


def _bytes(case: str, metric: str, value: float) -> Record:
    return Record(case=case, system="pocketxl-int8", metric=metric, value=value, unit="B")


if __name__ == "__main__":
    main()
