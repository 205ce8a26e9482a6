"""How long until the first picture: `python -m benchmarks.startup [--runs N]`.

Times whole fresh processes: importing the runtime, and `pocketxl generate` with the bundled miniature from command to
file. The peer is what a diffusers program imports before its first line of work.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .report import Record, finish

IMPORTS = {
    "pocketxl": "import pocketxl.engine",
    "pocketxl-pipeline": "from pocketxl.engine import Pipeline",
    "numpy": "import numpy",
    "diffusers": "from diffusers import StableDiffusionXLPipeline",
}


def main() -> None:
    """Measure and print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    bare = median_seconds([sys.executable, "-c", "pass"], args.runs)
    records = []
    for system, code in IMPORTS.items():
        seconds = median_seconds([sys.executable, "-c", code], args.runs) - bare
        records.append(Record(case="import", system=system, metric="seconds", value=seconds, unit="s"))
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "apple.png"
        command = [
            sys.executable,
            "-m",
            "pocketxl.engine.commands.main",
            "generate",
            "a red apple on a blue background",
        ]
        seconds = median_seconds([*command, "-o", str(picture), "--overwrite", "--seed", "7", "--quiet"], args.runs)
        if not picture.stat().st_size:
            raise SystemExit("no picture was made")
    records.append(Record(case="generate_cold", system="pocketxl-int8", metric="seconds", value=seconds, unit="s"))
    for record in records:
        sys.stderr.write(f"{record.case} {record.system}: {record.value:.3f} s\n")
    finish("startup", records)


def median_seconds(command: Sequence[str], runs: int) -> float:
    """Median wall time of the whole process, one warm-up before."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
