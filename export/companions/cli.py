"""`pocketxl build-controlnet`: ControlNet → a folder that is used beside an engine."""

import argparse
from pathlib import Path

from ...engine.commands.base import Command
from ..cli import add_build_options, progress_of, tell


def _configure(parser: argparse.ArgumentParser) -> None:
    from ..quantize.recipes import RECIPES

    parser.add_argument("source", help="ControlNet for SDXL: diffusers folder or single-file .safetensors")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder to make")
    parser.add_argument(
        "--base", required=True, help="SDXL base that it is calibrated with: diffusers folder, .safetensors, or hub id"
    )
    parser.add_argument("--target", default="cpu", help="what it is to run on: cpu, onnx-fp16 (default: cpu)")
    parser.add_argument("--recipe", help=f"how weights are stored: {', '.join(RECIPES)} (default: the target's)")
    parser.add_argument("--config", type=Path, help="config.json of a single file that is of another size than SDXL's")
    parser.add_argument("--base-config", type=Path, help="diffusers folder that describes the base's single file")
    parser.add_argument("--vae", type=Path, help="VAE in place of the base's own")
    add_build_options(parser, "control/unet:conv_in")


def _run(args: argparse.Namespace) -> int:
    from .controlnet import build_controlnet

    report = build_controlnet(
        args.source,
        args.output,
        base=args.base,
        target=args.target,
        recipe=args.recipe,
        config=args.config,
        base_config=args.base_config,
        vae=args.vae,
        calibration_size=args.calibration_size,
        keep=args.keep,
        strict=args.strict,
        force=args.force,
        threads=args.threads,
        progress=progress_of(args),
    )
    tell(report, args)
    return 0


command = Command(
    help="turn a ControlNet into a folder that is used beside an engine",
    example="pocketxl build-controlnet controlnet-canny-sdxl-1.0 --base sd_xl_base_1.0.safetensors -o canny",
    configure=_configure,
    run=_run,
)
