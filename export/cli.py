"""`pocketxl build`: checkpoint → engine folder."""

import argparse
from pathlib import Path

from ..engine.commands.base import Command
from ..engine.commands.lora import loras_of
from .options import add_build_options, add_calibration, build_options, tell


def _configure(parser: argparse.ArgumentParser) -> None:
    from ..engine.sampling.levels.settings import PredictionType

    parser.add_argument(
        "source", help="SDXL base, or Stable Diffusion 1 or 2: diffusers folder, single-file .safetensors, or hub id"
    )
    parser.add_argument("--refiner", help="SDXL refiner, in any of the same forms")
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
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="a LoRA that is merged into the weights, such as style.safetensors:0.8; can be repeated",
    )
    parser.add_argument(
        "--largest",
        type=int,
        metavar="PIXELS",
        help="longest side of a picture, for rtx and tensorrt, 1536 (default) to 2048; other targets take any size",
    )
    add_build_options(parser, "base/unet:conv_in")
    add_calibration(parser)
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FOLDER",
        help="keep the unquantized run here, for builds of the same checkpoint in other recipes or for other targets",
    )


def _run(args: argparse.Namespace) -> int:
    from .build import build

    report = build(
        args.source,
        args.output,
        refiner=args.refiner,
        config=args.config,
        refiner_config=args.refiner_config,
        prediction_type=args.prediction_type,
        zero_snr=args.zero_snr,
        vae=args.vae,
        clip_skip=args.clip_skip,
        tiny_decoder=args.tiny_decoder,
        loras={Path(file): weight for file, weight in loras_of(args.lora).items()},
        largest=args.largest,
        calibration_size=args.calibration_size,
        reference=args.reference,
        **build_options(args),
    )
    tell(report, args)
    return 0


command = Command(
    help="turn a checkpoint of SDXL, or of Stable Diffusion 1 or 2, into an engine folder",
    example="pocketxl build sd_xl_base_1.0.safetensors --refiner sd_xl_refiner_1.0.safetensors -o my-engine",
    configure=_configure,
    run=_run,
)
