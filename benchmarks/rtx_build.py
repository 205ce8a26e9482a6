"""Build TensorRT for RTX engines and read them: `python -m benchmarks.rtx_build --base FOLDER --refiner FOLDER`.

Without a GPU. Of every recipe: time and peak memory of the build, bytes, error of what went into the compiler, and what
the engines' own programs say: fused attentions, types of the products' factors, types of the weights, and the working
memory of one picture with both sides of guidance; and what `pocketxl plan` makes of it: the least free memory of a card
on which base and refiner stay together, and where that goes. The default is the bundled miniature;
`benchmarks.random_checkpoint` writes full-size weights. With `--folder` the engines stay, and a build that was killed
goes on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pocketxl.export.miniature
from pocketxl.engine.compiled.arena import arena_at
from pocketxl.engine.compiled.program import Compiled
from pocketxl.engine.compiled.read import read_compiled
from pocketxl.engine.folder.manifest import ComponentEntry, Manifest, read_manifest
from pocketxl.engine.runners.tensorrt import ENGINE_FILE
from pocketxl.engine.specs import Role
from pocketxl.export.targets import TARGETS, find_target
from pocketxl.export.targets.check import recipes_for

from .build_memory import watch_build
from .report import Record, finish

WEIGHTS = Path(pocketxl.export.miniature.__file__).parent / "weights"


def main() -> int:
    """Build and read what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rtx_build", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--base", type=Path, default=WEIGHTS / "base", help="a diffusers folder (default: miniature)")
    parser.add_argument("--refiner", type=Path, default=WEIGHTS / "refiner")
    parser.add_argument("--target", choices=[n for n in TARGETS if n.startswith("rtx")], default="rtx")
    parser.add_argument("--recipes", nargs="+", help="default: all that the target can do")
    parser.add_argument("--calibration-size", type=int, help="pixels of the reference run; see pocketxl build --help")
    parser.add_argument("--pixels", type=int, default=1024, help="width and height that working memory is told for")
    parser.add_argument("--folder", type=Path, help="where the engines are made and stay (default: a temporary one)")
    options = parser.parse_args()
    possible = recipes_for(find_target(options.target))
    recipes = options.recipes or possible
    if unknown := set(recipes) - set(possible):
        parser.error(f"{options.target} cannot do {sorted(unknown)}; choose from {', '.join(possible)}")
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as work:
        for recipe in recipes:
            folder, system = (options.folder or Path(work)) / recipe, f"{options.target} {recipe}"
            records += built(options, recipe, folder)
            records += read(folder, read_manifest(folder), system, options.pixels)
            records += planned(folder, system, options.pixels)
    finish("rtx_build", records)
    return 0


def built(options: argparse.Namespace, recipe: str, folder: Path) -> Iterator[Record]:
    """`pocketxl build` in a process of its own, and what it took, it and those that it started."""
    command = [sys.executable, "-m", "pocketxl.engine", "build", str(options.base), "--refiner", str(options.refiner)]
    command += ["-o", str(folder), "--target", options.target, "--recipe", recipe, "--json"]
    if options.calibration_size:
        command += ["--calibration-size", str(options.calibration_size)]
    made = watch_build(command)
    if made.status:
        sys.exit(made.status)  # it has said why
    system = f"{options.target} {recipe}"
    yield Record(case="build", system=system, metric="seconds", value=made.seconds, unit="s")
    for stage, peak in made.peaks.items():
        for metric, value in vars(peak).items():
            yield Record(case=f"build: {stage}", system=system, metric=f"peak_{metric}", value=value, unit="B")


def planned(folder: Path, system: str, pixels: int) -> Iterator[Record]:
    """What `pocketxl plan` says of a picture for which the U-Nets stay on the card together."""

    def plan(device: int) -> Any:
        command = [sys.executable, "-m", "pocketxl.engine", "plan", str(folder), "--json"]
        command += ["--width", str(pixels), "--height", str(pixels), "--device-memory", str(device)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)

    together = plan(1 << 40)["unets_stay_bytes"]
    if together is None:  # an engine for no card
        return
    yield Record(case="plan", system=system, metric="u_nets_stay_from", value=together, unit="B")
    found = plan(together)
    yield Record(case="plan", system=system, metric="streamed_over_bands", value=len(found["streamed"]), unit="1")
    for phase in found["phases"]:
        for metric in ("weight_bytes", "working_bytes", "total_bytes"):
            yield Record(case=f"plan: {phase['phase']}", system=system, metric=metric, value=phase[metric], unit="B")


def read(folder: Path, manifest: Manifest, system: str, pixels: int) -> Iterator[Record]:
    """What each component's engine says of itself."""
    for name, entry in manifest.components.items():
        compiled = read_compiled(folder / name / ENGINE_FILE)
        if compiled is None:
            print(f"{system}: {name}: the program of this version of the library cannot be read", file=sys.stderr)
            continue

        def add(metric: str, value: float, unit: str, *, name: str = name) -> Record:
            return Record(case=name, system=system, metric=metric, value=value, unit=unit)

        yield add("engine_bytes", (folder / name / ENGINE_FILE).stat().st_size, "B")
        yield add("relative_error_of_stand_in", entry.quality["relative_error"], "1")
        yield add("fused_attentions", compiled.attentions, "1")
        for types, count in factors(compiled).items():
            yield add(f"products_of_{types}", count, "1")
        for kind, size in sorted(compiled.constants.items()):
            yield add(f"constants_{kind}", size, "B")
        arena = arena_at(compiled, shapes(entry, pixels))
        yield add("arena_bytes", compiled.arena_bytes if arena is None else arena, "B")


def factors(compiled: Compiled) -> Counter[str]:
    """Types of both factors → how many products have them."""
    return Counter("_".join((p.kind, *p.factors)) for p in compiled.products)


def shapes(entry: ComponentEntry, pixels: int) -> dict[str, tuple[int, ...]]:
    """Inputs of a call: a picture of these pixels, both sides of guidance in a U-Net, one prompt of 77 tokens."""
    side = pixels // 8
    rows = 1 if entry.spec.role in (Role.VAE_DECODER, Role.VAE_ENCODER) else 2
    sizes = {"batch": rows, "tokens": 77, "steps": 30, "height": side, "width": side}
    sizes |= {"image_height": pixels, "image_width": pixels}
    return {t.name: tuple(d if isinstance(d, int) else sizes[d] for d in t.shape) for t in entry.spec.inputs}


if __name__ == "__main__":
    sys.exit(main())
