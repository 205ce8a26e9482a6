"""What all builds have in common on the command line: their options, how they go, and what they say in the end."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.commands.base import emit, say
from ..engine.commands.formats import more_bits, summary
from ..engine.memory.sizes import format_bytes
from ..engine.progress import Bars, JsonLines, Progress, Silent

if TYPE_CHECKING:
    from .build import BuildReport
    from .target import Target


def add_build_options(parser: argparse.ArgumentParser, layer: str, targets: Sequence[str] | None = None) -> None:
    """Declare how a build of anything goes.

    `layer`: a layer's name, for the help; `targets`: those that there are for it (None: all).
    """
    from .quantize.recipes import RECIPES
    from .targets import TARGETS

    known = {name: target for name, target in TARGETS.items() if targets is None or name in targets}
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder to make")
    parser.add_argument(
        "--target",
        default="cpu",
        help=f"what it is to run on: {', '.join(known)}{'' if targets is None else ' so far'} (default: cpu)",
    )
    parser.add_argument(
        "--recipe",
        help=f"how weights are stored: {', '.join(RECIPES)} (default: {_defaults(known)})",
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="LAYER",
        help=f"a layer that stays in floats, such as {layer} or 'base/unet:*ff.net.2'; can be repeated",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail where the recipe's own formats miss its goal; no layer gets more bits",
    )
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Declare how a build runs and what it tells."""
    parser.add_argument("--force", action="store_true", help="build everything again, whatever is there")
    parser.add_argument(
        "--threads", type=int, help="threads for the reference run and the gate (default: one per core)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.add_argument("--json", action="store_true", help="progress and result as one JSON object per line")


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Declare what builds have that make pictures to be measured by."""
    parser.add_argument(
        "--calibration-size",
        type=int,
        help="width and height of the calibration pictures (default: native, at most 512)",
    )


def build_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of every build."""
    names = ("target", "recipe", "keep", "strict", "force", "threads")
    return {**{name: getattr(args, name) for name in names}, "progress": progress_of(args)}


def tell(report: "BuildReport", args: argparse.Namespace) -> None:
    """What a build did, for people or machines."""
    manifest = report.manifest
    size = sum(file.size for file in manifest.files)
    if args.json:
        emit(
            "built", engine=str(report.folder), cached=report.cached, reasons=report.reasons, taken=report.taken,
            notes=report.notes, size_bytes=size, quality=manifest.quality,
            components={n: {**c.quality, "quality_of": c.quality_of} for n, c in manifest.components.items()},
        )  # fmt: skip
        return
    if report.cached:
        say(f"{report.folder} is up to date: same weights, recipe, target and versions")
        return
    for reason in () if args.quiet else report.reasons:
        say(f"built because: {reason}")
    if report.taken and not args.quiet:
        say(f"taken over, since none of it touches them: {', '.join(report.taken)}")
    for name, entry in () if args.quiet else manifest.components.items():
        where = ", of its stand-in in ONNX" if entry.quality_of == "stand_in" else ""
        error = f"relative error {entry.quality['relative_error']:.2g}"
        say(f"  {name:<20} {format_bytes(entry.weight_bytes):>10}  {error}{where}")
        if cost := more_bits(entry):
            say(f"    {summary(entry)}; {cost}")
    for note in report.notes:
        say(note)
    psnr = f", pictures {manifest.quality['psnr_db']:.1f} dB from the unquantized ones" if manifest.quality else ""
    say(f"{report.folder}: {format_bytes(size)}, {manifest.recipe} for {manifest.target}{psnr}")


def progress_of(args: argparse.Namespace) -> Progress:
    """Where the user wants to see how it goes."""
    if args.quiet:
        return Silent()
    return JsonLines(sys.stdout) if args.json else Bars()


def _defaults(targets: "Mapping[str, Target]") -> str:
    """`int8 for cpu; fp16 for rtx`: a target for one GPU generation (`rtx-sm89`) has the default of all (`rtx`)."""
    whole = {
        name: target for name, target in targets.items() if name.partition("-")[0] not in targets or "-" not in name
    }
    recipes = dict.fromkeys(target.default_recipe for target in whole.values())
    return "; ".join(
        f"{recipe} for {', '.join(n for n, t in whole.items() if t.default_recipe == recipe)}" for recipe in recipes
    )
