"""`pocketxl build`: checkpoint → engine folder."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.commands.base import Command, emit, say
from ..engine.commands.formats import more_bits, summary
from ..engine.memory.sizes import format_bytes
from ..engine.progress import Bars, JsonLines, Progress, Silent

if TYPE_CHECKING:
    from .build import BuildReport
    from .target import Target


def _configure(parser: argparse.ArgumentParser) -> None:
    from ..engine.sampling.levels.settings import PredictionType
    from .quantize.recipes import RECIPES
    from .targets import TARGETS

    parser.add_argument(
        "source", help="SDXL base, or Stable Diffusion 1 or 2: diffusers folder, single-file .safetensors, or hub id"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, help="engine folder to make")
    parser.add_argument("--refiner", help="SDXL refiner, in any of the same forms")
    parser.add_argument("--target", default="cpu", help=f"what it is to run on: {', '.join(TARGETS)} (default: cpu)")
    parser.add_argument(
        "--recipe",
        help=f"how weights are stored: {', '.join(RECIPES)} (default: {_defaults(TARGETS)})",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="diffusers folder that describes a single file of another size than the public one",
    )
    parser.add_argument("--refiner-config", type=Path, help="the same for the refiner's single file")
    parser.add_argument(
        "--vae", type=Path, help="VAE in place of the checkpoint's own: .safetensors or diffusers folder"
    )
    parser.add_argument(
        "--tiny-decoder",
        type=Path,
        help="TAESD's decoder beside the VAE, for quick pictures and previews: .safetensors or diffusers folder",
    )
    parser.add_argument(
        "--prediction-type",
        choices=[kind.value for kind in PredictionType],
        help="what the base predicts, whatever its file says of it (a refiner's is its own)",
    )
    parser.add_argument(
        "--zero-snr",
        action=argparse.BooleanOptionalAction,
        help="whether the base was trained to zero terminal SNR, whatever its file says of it",
    )
    parser.add_argument(
        "--clip-skip",
        type=int,
        default=0,
        help="read the text encoders so many layers before the penultimate one (default: 0, as SDXL is made)",
    )
    add_build_options(parser, "base/unet:conv_in")


def add_build_options(parser: argparse.ArgumentParser, layer: str) -> None:
    """Declare how a build of anything goes; `layer`: a layer's name, for the help."""
    parser.add_argument(
        "--calibration-size",
        type=int,
        help="width and height of the calibration pictures (default: native, at most 512)",
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


def _run(args: argparse.Namespace) -> int:
    from .build import build

    report = build(
        args.source,
        args.output,
        refiner=args.refiner,
        target=args.target,
        recipe=args.recipe,
        config=args.config,
        refiner_config=args.refiner_config,
        prediction_type=args.prediction_type,
        zero_snr=args.zero_snr,
        vae=args.vae,
        clip_skip=args.clip_skip,
        tiny_decoder=args.tiny_decoder,
        calibration_size=args.calibration_size,
        keep=args.keep,
        strict=args.strict,
        force=args.force,
        threads=args.threads,
        progress=progress_of(args),
    )
    tell(report, args)
    return 0


def tell(report: "BuildReport", args: argparse.Namespace) -> None:
    """What a build did, for people or machines."""
    manifest = report.manifest
    size = sum(file.size for file in manifest.files)
    if args.json:
        emit(
            "built", engine=str(report.folder), cached=report.cached, reasons=report.reasons, taken=report.taken,
            size_bytes=size, quality=manifest.quality,
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


command = Command(
    help="turn a checkpoint of SDXL, or of Stable Diffusion 1 or 2, into an engine folder",
    example="pocketxl build sd_xl_base_1.0.safetensors --refiner sd_xl_refiner_1.0.safetensors -o my-engine",
    configure=_configure,
    run=_run,
)
