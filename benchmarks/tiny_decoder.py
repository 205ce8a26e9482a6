"""TAESD's decoder with random weights beside the VAE's: `python -m benchmarks.tiny_decoder [--sizes 512 1024]`.

Seconds, processor seconds, and what a decode adds to the resident set of a process that has the weights; each system
and size in a process of its own, the least of `--rounds`. The VAE is that of `benchmarks.vae`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from .report import Record, finish

SYSTEMS = ("diffusers-tiny-fp32", "pocketxl-tiny-fp32", "pocketxl-int8")
UNITS = {"seconds": "s", "cpu_seconds": "s", "peak_rss_bytes": "B", "planned_bytes": "B", "relative_error": "1"}


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.tiny_decoder", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=None, help="where engines are kept for the next run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as beside:
        found: dict[tuple[str, int], dict[str, float]] = {}
        for _ in range(arguments.rounds):
            for size in arguments.sizes:
                for system in arguments.systems:
                    new = _measured(system, size, arguments.work or Path(beside), arguments.threads)
                    old = found.setdefault((system, size), new)
                    found[system, size] = {name: min(old[name], value) for name, value in new.items()}
    records = [
        Record(case=f"decode_{size}", system=system, metric=metric, value=value, unit=UNITS[metric])
        for (system, size), values in found.items()
        for metric, value in values.items()
    ]
    finish("tiny_decoder", records, extra={"threads": arguments.threads})


def _measured(system: str, size: int, work: Path, threads: int) -> dict[str, float]:
    child = ["benchmarks.tiny_decoder_child"] if "tiny" in system else ["benchmarks.vae_child", "decoder"]
    command = [sys.executable, "-m", *child, system, str(size), str(work), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(f"{system} {size}: {found}\n")
    return found


if __name__ == "__main__":
    main()
