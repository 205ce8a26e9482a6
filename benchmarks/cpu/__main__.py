"""Networks and whole pictures on this machine's processor, ours beside their peers: `python -m benchmarks.cpu`.

One run: the same weights, inputs and number of threads for all, and a process for each system and case, one after
another. Without `--base` on the bundled miniature, at an eighth of each case's sides, in minutes (its figures say more
of overhead than of arithmetic). Full size needs a checkpoint, as `benchmarks.random_checkpoint` writes one.

`seconds` of a forward or a decode are the median after a warm-up. Those of a picture are of one cold process, from its
first import to the picture: text, steps and VAE, loading included, each part in memory after the other. `load_seconds`
is that part of it, or what comes before the warm-up; our U-Net's has its conditioner's call in it. `first_seconds` are
those of the first picture of its size, where a system keeps for the next process what it has compiled. Converting,
quantizing and building come before, are not timed, and stay in `--work`. Relative errors are told against diffusers in
float32.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from pocketxl.engine.runners.cores import available_cores, processors

from ..journal import Journal
from ..report import finish
from ..table import table
from ..tiles import forbid_tiles
from .cases import CASES, cases
from .job import MINIATURE, Model
from .run import run
from .systems import SYSTEMS

SCALE = 8
"""The miniature is native at 128²: what 1024² is to SDXL."""


def main() -> int:
    """Measure; the JSON object is the last line. 2: the folders that were given are no checkpoints."""
    names = [system.name for system in SYSTEMS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--cases", nargs="+", default=[], choices=[c.name for c in CASES], help="only these")
    parser.add_argument("--systems", nargs="+", default=names, choices=names, help="only these")
    parser.add_argument("--base", type=Path, help="a diffusers folder (default: the miniature, base and refiner)")
    parser.add_argument("--refiner", type=Path, help="a diffusers folder: pictures of 30 steps are then of both")
    parser.add_argument("--work", type=Path, help="folder that keeps engines, conversions and results for the next run")
    parser.add_argument(
        "--threads", type=int, default=available_cores(), help="of every system (default: as doctor says)"
    )
    parser.add_argument(
        "--without-amx", action="store_true", help="as on a processor that has no more than AVX512-VNNI (Linux)"
    )
    parser.add_argument("--out", type=Path, help="file that holds the records at any time")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"--threads is {options.threads}, at least 1 is needed")
    base, refiner, scale = options.base, options.refiner, 1
    if base is None:
        base, refiner, scale = MINIATURE / "base", refiner or MINIATURE / "refiner", SCALE
    for folder in filter(None, (base, refiner)):
        if not (folder / "unet" / "config.json").is_file():
            sys.stderr.write(f"error: {folder} is no diffusers folder: it has no unet/config.json\n")
            return 2
    with tempfile.TemporaryDirectory(prefix="pocketxl-") as aside:
        work = (options.work or Path(aside)).resolve()
        if refusal := _others(work, base, refiner):
            sys.stderr.write(f"error: {refusal}\n")
            return 2
        model = Model(base=base, refiner=refiner, work=work, threads=options.threads, scale=scale)
        extra = {"threads": options.threads, "processors": processors().reason, "scale": scale, "base": base.name}
        if options.without_amx:
            try:
                forbid_tiles()
            except OSError as error:
                sys.stderr.write(f"error: --without-amx: {error}\n")
                return 2
            extra["amx"] = extra["bfloat16"] = "forbidden"
        journal = Journal("cpu", options.out, extra)
        wanted = [system for system in SYSTEMS if system.name in options.systems]
        try:
            run(cases(options.cases, scale=scale), wanted, model, journal)
        finally:
            sys.stderr.write(table(journal.records))
            finish("cpu", journal.records, extra=journal.extra)
    return 0


def _others(work: Path, base: Path, refiner: Path | None) -> str | None:
    """Why the work folder cannot be used: what is in it was made of other weights."""
    work.mkdir(parents=True, exist_ok=True)
    mark, ours = work / "checkpoints.txt", "\n".join(str(path.resolve()) for path in (base, refiner) if path)
    if mark.exists() and (there := mark.read_text(encoding="utf-8")) != ours:
        return (
            f"{work} has what was made of {' and '.join(there.splitlines())}; give another --work for these checkpoints"
        )
    mark.write_text(ours, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
