"""Whole pictures on a GPU, stage by stage: `python -m benchmarks.pictures --engine ENGINE … --base DIR --refiner DIR`.

Ours beside diffusers' pipelines on the checkpoint that the engines were built from, each in a process of its own, each
with another text for every run. What the first system makes is what the others' pictures are compared with: give the
most exact engine first. `--tiny` makes small pictures of the miniature on a processor; their times say nothing.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pocketxl.engine.errors import PocketXLError
from pocketxl.engine.folder.manifest import read_manifest

from ..journal import Journal
from ..report import finish
from ..table import table
from .cases import CASES, TINY, Case, chosen
from .ours import name_of

UNITS = {"pictures_per_second": "1/s", "psnr_db": "dB"}
PEERS = ("diffusers", "diffusers-compiled")
Places = Mapping[str, str | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the JSON object is the last line. 2: there is no GPU, and nothing says that none is needed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("--engine", type=Path, nargs="+", default=[], help="engine folders, the most exact one first")
    parser.add_argument("--base", type=Path, help="the base's checkpoint as a diffusers folder, for the peers")
    parser.add_argument("--refiner", type=Path, help="the refiner's")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, help="of diffusers (default: both)")
    parser.add_argument("--cases", nargs="+", default=[], choices=[c.name for c in (*CASES, *TINY)], help="only these")
    parser.add_argument("--out", type=Path, help="file that holds the records at any time")
    parser.add_argument("--tiny", action="store_true", help="small pictures, on a processor")
    options = parser.parse_args(arguments)
    extra: dict[str, object] = {}
    if not options.tiny:
        import torch

        from ..gpu_environment import gpu_environment

        if not torch.cuda.is_available():
            sys.stderr.write("error: no GPU here; --tiny makes small pictures of the miniature on the processor\n")
            return 2
        extra = gpu_environment()
    if not options.engine and options.base is None:
        parser.error("there is nothing to measure; give --engine, --base or both")
    try:
        systems = _systems(options)
    except PocketXLError as error:
        parser.error(str(error))
    cases = chosen(options.cases, tiny=options.tiny)
    journal = Journal("pictures", options.out, extra)
    status = 0
    try:
        with TemporaryDirectory(prefix="pocketxl-") as aside:
            made: dict[str, Path] = {}
            for system, places in systems.items():
                made[system] = Path(aside) / system
                made[system].mkdir()
                _run(system, places, [case for case in cases if _makes(places, case)], made[system], journal)
            _compare(list(made.items()), cases, journal)
    except KeyboardInterrupt:
        journal.note("interrupted: what was measured until then is here")
        status = 130
    sys.stderr.write(table(journal.records))
    finish("pictures", journal.records, extra=journal.extra)
    return status


def _systems(options: argparse.Namespace) -> dict[str, Places]:
    """What to measure, by name. Raises what reading an engine's description raises."""
    systems: dict[str, Places] = {name_of(engine): {"engine": str(engine)} for engine in options.engine}
    if options.base is not None:
        folders = {"base": str(options.base), "refiner": options.refiner and str(options.refiner)}
        systems |= dict.fromkeys(options.peers, folders)
    return systems


def _makes(places: Places, case: Case) -> bool:
    """Whether a system has what a case needs."""
    if not case.refined:
        return True
    if (engine := places.get("engine")) is None:
        return places.get("refiner") is not None
    return "refiner" in read_manifest(Path(engine)).models.denoisers


def _run(system: str, places: Places, cases: Sequence[Case], folder: Path, journal: Journal) -> None:
    """One system in a process of its own; if that fails, why is noted and the next one's turn comes."""
    command = [sys.executable, "-m", "benchmarks.pictures.child", system, json.dumps(dict(places))]
    command += [json.dumps([case.name for case in cases]), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                one = json.loads(line)
                for metric, value in one["found"].items():
                    unit = UNITS.get(metric, "B" if metric.endswith("bytes") else "s")
                    journal.add(one["case"], system, metric, value, unit)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.wait():
        journal.note(f"{system} ended with status {process.returncode}; see what it wrote above")


def _compare(made: Sequence[tuple[str, Path]], cases: Sequence[Case], journal: Journal) -> None:
    (first, expected), *others = made
    for case in cases:
        truth = expected / f"{case.name}.npy"
        for system, folder in others:
            found = folder / f"{case.name}.npy"
            if truth.exists() and found.exists():
                pair = [np.load(file, allow_pickle=False).astype(np.float64) for file in (found, truth)]
                mean = float(np.square(pair[0] - pair[1]).mean())
                journal.add(case.name, system, "psnr_db", -10 * math.log10(max(mean, 1e-12)), "dB")
    journal.note(f"psnr_db is against the pictures of {first}")


if __name__ == "__main__":
    sys.exit(main())
