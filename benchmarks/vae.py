"""The VAE of full-size SDXL with random weights: `python -m benchmarks.vae [--half encoder] [--sizes 512 1024 2048]`.

PocketXL's recipes beside diffusers in float32 and bfloat16, and bfloat16 with diffusers' tiles, in one run: seconds
of a decode (on OpenVINO at once, and over bands; with `--half encoder` of an encode), what it adds to the resident set
of a process that has the weights, and the error against diffusers in float32. Each system has a process of its own;
sizes are gone through in turn by all of them (`--rounds` times), and the least time counts, so that what else runs on
the machine troubles all alike. In int8, layers that lose too much get floats, as in a build. An error on random weights
says little of pictures: quality is judged on the miniature.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .report import Record, finish
from .tiles import forbid_tiles

SYSTEMS = (
    "diffusers-fp32",
    "diffusers-bf16",
    "diffusers-bf16-tiles",
    "pocketxl-cpu-int8",
    "pocketxl-cpu-int8-weight",
    "pocketxl-cpu-fp32",
    "pocketxl-openvino-int8",
    "pocketxl-openvino-int8-bands",
    "pocketxl-openvino-fp32",
    "pocketxl-openvino-fp32-bands",
)
REFERENCE = "diffusers-fp32"


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.vae", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--half", choices=("decoder", "encoder"), default="decoder")
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--work", type=Path, default=None, help="where engines are kept for the next run")
    parser.add_argument(
        "--without-amx", action="store_true", help="as on a processor that has no more than AVX512-VNNI (Linux)"
    )
    arguments = parser.parse_args()
    if arguments.without_amx:
        try:
            forbid_tiles()
        except OSError as error:
            parser.error(f"--without-amx: {error}")
    with tempfile.TemporaryDirectory() as beside:
        work = arguments.work or Path(beside)
        found: dict[tuple[str, int], dict[str, float]] = {}
        for _ in range(arguments.rounds):
            for size in arguments.sizes:
                for system in sorted(arguments.systems, key=lambda name: name != REFERENCE):
                    new = _measured(arguments.half, system, size, work, arguments.threads)
                    old = found.setdefault((system, size), new)
                    found[system, size] = {name: min(old[name], value) for name, value in new.items()}
    finish(
        "vae",
        list(_records(arguments.half, found)),
        extra={"threads": arguments.threads, "without_amx": arguments.without_amx},
    )


def _measured(half: str, system: str, size: int, work: Path, threads: int | None) -> dict[str, float]:
    """One call in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.vae_child", half, system, str(size), str(work)]
    if threads is not None:
        command.append(str(threads))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(f"{system} {size}: {found}\n")
    return found


_UNITS = {"seconds": "s", "cpu_seconds": "s", "peak_rss_bytes": "B", "planned_bytes": "B", "relative_error": "1"}


def _records(half: str, found: dict[tuple[str, int], dict[str, float]]) -> Iterator[Record]:
    for (system, size), values in found.items():
        for metric, value in values.items():
            yield Record(case=f"vae_{half[:-1]}_{size}", system=system, metric=metric, value=value, unit=_UNITS[metric])


if __name__ == "__main__":
    main()
