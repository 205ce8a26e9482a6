"""Error, likeness, size and time of quantized engines and of peers: `python -m benchmarks.quantization`.

On the miniature as it is, with outlier channels that its networks do not feel (`benchmarks.stress`), and with heavy
tails. References are float32: torch's for components, the fp32 engine of the unstressed miniature for pictures. A
build that refuses the weights is a row of its own.

What is compared: ours quantizes all components as its recipe says (`reference-…`: the
formats of other targets in torch); torch's peers the linear layers of U-Nets and
conditioners; ONNX Runtime's the U-Nets, convolutions too where it is static. Sizes are of all weights, so that what a
peer leaves in float32 counts as such. Seconds are of a component's call as the pipeline makes it; those of peers in
torch are eager ones, which say more of torch than of the format.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pocketxl.engine.errors import QualityError
from pocketxl.export.targets import find_target
from pocketxl.export.targets.check import recipes_for

from ..report import Record, finish
from .cases import Case, Settings, cases
from .measure import figures, of_runners
from .ort_peers import ort_peers
from .prompts import Pictures
from .simulated import simulated
from .systems import AbsentError, System, engine, torch_float32
from .torch_peers import torch_peers

WEIGHTS = Path(__file__).parents[2] / "export" / "miniature" / "weights"
FACTORS = (1.0, 10.0, 30.0, 100.0)
TARGET = "cpu"


def systems(recipes: Sequence[str], *, peers: bool) -> list[System]:
    """All rows, ours first."""
    ours = [*(engine(recipe) for recipe in recipes), *simulated()]
    return [*ours, torch_float32(), *torch_peers(), *ort_peers()] if peers else ours


def run(found: Sequence[Case], rows: Sequence[System]) -> tuple[list[Record], dict[str, str]]:
    """Records of every system on every case, and why there are none where there are none.

    Pictures are held to those of the first case whose pictures mean anything, by its fp32 engine.
    """
    records: list[Record] = []
    left_out: dict[str, str] = {}
    references: Pictures | None = None
    for case in found:
        if case.pictures and references is None and case.settings.pictures:
            references = of_runners(case, case.fp32.runners, case.settings.pictures)
        for system in rows:
            if left_out.get(system.name):
                continue
            try:
                opened = system.open(case)
                made = figures(case, system, opened, references if case.pictures else None)
            except AbsentError as error:
                left_out[system.name] = str(error)
                made = []
            except QualityError as error:
                left_out[f"{case.name} {system.name}"] = str(error)
                made = [Record(case=case.name, system=system.name, metric="refused", value=1.0, unit="1")]
            records += made
            _say(case, system, made)
    return records, left_out


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization", description=(__doc__ or "").split(":")[0]
    )
    names = list(recipes_for(find_target(TARGET)))
    parser.add_argument("--base", type=Path, default=WEIGHTS / "base", help="a diffusers folder (default: miniature)")
    parser.add_argument("--refiner", type=Path, default=WEIGHTS / "refiner")
    parser.add_argument("--stress", type=float, nargs="+", default=FACTORS, help="factors of outlier channels; 1: none")
    parser.add_argument("--tails", action=argparse.BooleanOptionalAction, default=True, help="the heavy-tailed case")
    parser.add_argument("--recipes", nargs="*", choices=names, default=names)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--systems", nargs="+", help="only those of these names")
    parser.add_argument("--pictures", type=int, default=50, help="of each system and case (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--threads", type=int, help="default: the libraries' own choice")
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    settings = Settings(pictures=options.pictures, steps=options.steps, size=options.size, threads=options.threads)
    rows = systems(options.recipes, peers=options.peers)
    names = [row.name for row in rows]
    if unknown := set(options.systems or ()) - set(names):
        parser.error(f"unknown systems {sorted(unknown)}; choose from {', '.join(names)}")
    rows = [row for row in rows if options.systems is None or row.name in options.systems]
    with tempfile.TemporaryDirectory() as work:
        found = cases(options.base, options.refiner, Path(work), options.stress, tails=options.tails, settings=settings)
        records, left_out = run(found, rows)
    finish("quantization", records, extra={"steps": settings.steps, "pixels": settings.size, "left_out": left_out})
    return 0


def _say(case: Case, system: System, made: Sequence[Record]) -> None:
    said = ", ".join(f"{r.case.removeprefix(case.name).strip()} {r.metric} {r.value:.4g}" for r in made)
    print(f"{case.name}: {system.name}: {said or 'left out'}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
