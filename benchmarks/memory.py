"""The memory plan against the process's peak, at full size: `python -m benchmarks.memory ENGINE`.

Every case is a whole call in a process of its own: one step of the base, one of the refiner, guidance, components
released after use (the least memory that the engine works in). What is compared is the resident set's high-water mark,
of the whole call and of each stage (Linux). A plan is true where plan ≥ peak ≥ 0.9 plan.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pocketxl.engine.memory.resident import forget_resident_peak, resident_peak

from .report import Record, finish

SIZES = (512, 1024)
PROMPTS = (1, 4)
TEXTS = ("a castle on a hill at sunset", "a red apple", "a portrait of a woman with a flower", "a robot beside a tree")


def main() -> None:
    """Measure every case and print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="sides of square pictures")
    parser.add_argument("--prompts", type=int, nargs="+", default=list(PROMPTS), choices=range(1, len(TEXTS) + 1))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        side, prompts = map(int, args.case.split("x"))
        print(json.dumps(measure(args.engine, side, prompts)))
        return
    records = []
    for side in args.sizes:
        for prompts in args.prompts:
            command = [sys.executable, "-m", "benchmarks.memory", str(args.engine), "--case", f"{side}x{prompts}"]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            records += _records(f"sdxl_{side}_prompts_{prompts}", found)
    finish("memory", records)


def measure(engine: Path, side: int, prompts: int) -> dict[str, Any]:
    """One call: what was planned and what the resident set reached, in all and by stage, in bytes."""
    from pocketxl.engine import Pipeline, ProgressEvent
    from pocketxl.engine.memory.plan import LEAST

    stages: dict[str, int] = {}
    peak = 0

    def progress(event: ProgressEvent) -> None:
        nonlocal peak
        if event.done:
            stages[event.stage] = high_water()
        elif event.step == 0:
            peak = max(peak, high_water())
            forget_resident_peak()

    call: dict[str, Any] = {
        "prompt": list(TEXTS[:prompts]),
        "negative_prompt": "blurry",
        "num_inference_steps": 2,
        "denoising_end": 0.5,
        "seed": 7,
        "width": side,
        "height": side,
    }
    pipe = Pipeline.load(engine, memory_budget=LEAST)
    plan = pipe.plan(**call)
    pipe(**call, progress=progress)
    planned: dict[str, int] = {}
    for row in plan.table():
        stage = "encode" if str(row["phase"]).startswith("encode") else "denoise"
        stage = "decode" if row["phase"] == "decode" else stage
        planned[stage] = max(planned.get(stage, 0), int(str(row["total_bytes"])))
    return {
        "planned": plan.peak_bytes,
        "peak": max(peak, *stages.values()),
        "stages": {
            stage: {"planned": planned[stage], "peak": reached} for stage, reached in stages.items() if stage in planned
        },
    }


def high_water() -> int:
    """The resident set's high-water mark in bytes since the process began, or since it was forgotten."""
    found = resident_peak()
    if found is None:
        raise SystemExit("this benchmark reads the kernel's own mark, so it needs Linux")
    return found


def _records(case: str, found: dict[str, Any]) -> list[Record]:
    def record(name: str, metric: str, value: float, unit: str = "B") -> Record:
        return Record(case=name, system="pocketxl-int8", metric=metric, value=value, unit=unit)

    records = []
    for name, both in ((case, found), *((f"{case}_{stage}", both) for stage, both in found["stages"].items())):
        share = both["peak"] / both["planned"]
        records += [
            record(name, "predicted_peak_bytes", both["planned"]),
            record(name, "peak_rss_bytes", both["peak"]),
            record(name, "peak_over_plan", share, "1"),
        ]
        planned, peak = both["planned"] / 1e9, both["peak"] / 1e9
        sys.stderr.write(f"{name}: planned {planned:.2f} GB, reached {peak:.2f}: {share:.3f}\n")
    return records


if __name__ == "__main__":
    main()
