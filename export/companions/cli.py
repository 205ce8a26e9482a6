"""`pocketxl build-controlnet`, `build-ip-adapter`, `build-t2i-adapter`, `build-upscaler`: what goes beside engines."""

import argparse
from pathlib import Path

from ...engine.commands.base import Command
from ..options import add_build_options, add_calibration, add_run_options, build_options, progress_of, tell
from . import TARGETS

_WIDTHS = "SDXL base, of which the widths count: diffusers folder, .safetensors, or hub id"


def _configure_controlnet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="ControlNet or ControlNet-Union for SDXL: diffusers folder or single-file .safetensors"
    )
    parser.add_argument("--config", type=Path, help="config.json of a single file that is of another size than SDXL's")
    parser.add_argument("--vae", type=Path, help="VAE in place of the base's own")
    _configure(
        parser,
        "SDXL base that it is calibrated with: diffusers folder, .safetensors, or hub id",
        "control/unet:conv_in",
    )
    add_calibration(parser)


def _configure_ip_adapter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="IP-Adapter for SDXL, plain or Plus: .safetensors file")
    parser.add_argument(
        "--image-encoder", required=True, help="folder of the CLIP image encoder that it was trained with"
    )
    _configure(parser, _WIDTHS, "image_prompt/encoder:visual_projection")


def _configure_t2i_adapter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="T2I adapter for SDXL: diffusers folder or single-file .safetensors")
    _configure(parser, _WIDTHS, "t2i_adapter/encoder:adapter.conv_in")


def _configure_upscaler(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="ESRGAN, Real-ESRGAN or Real-ESRGAN Compact: .safetensors file")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--target", default="cpu", help="what it is to run on: cpu, and nothing else so far")
    add_run_options(parser)


def _configure(parser: argparse.ArgumentParser, base: str, layer: str) -> None:
    parser.add_argument("--base", required=True, help=base)
    parser.add_argument("--base-config", type=Path, help="diffusers folder that describes the base's single file")
    add_build_options(parser, layer, TARGETS)


def _run_controlnet(args: argparse.Namespace) -> int:
    from .controlnet import build_controlnet

    report = build_controlnet(
        args.source,
        args.output,
        base=args.base,
        config=args.config,
        base_config=args.base_config,
        vae=args.vae,
        calibration_size=args.calibration_size,
        **build_options(args),
    )
    tell(report, args)
    return 0


def _run_ip_adapter(args: argparse.Namespace) -> int:
    from .ip_adapter import build_ip_adapter

    report = build_ip_adapter(
        args.source,
        args.output,
        image_encoder=args.image_encoder,
        base=args.base,
        base_config=args.base_config,
        **build_options(args),
    )
    tell(report, args)
    return 0


def _run_t2i_adapter(args: argparse.Namespace) -> int:
    from .t2i_adapter import build_t2i_adapter

    report = build_t2i_adapter(
        args.source, args.output, base=args.base, base_config=args.base_config, **build_options(args)
    )
    tell(report, args)
    return 0


def _run_upscaler(args: argparse.Namespace) -> int:
    from .upscaler import build_upscaler

    report = build_upscaler(
        args.source,
        args.output,
        target=args.target,
        force=args.force,
        threads=args.threads,
        progress=progress_of(args),
    )
    tell(report, args)
    return 0


controlnet = Command(
    help="turn a ControlNet into a folder that is used beside an engine",
    example="pocketxl build-controlnet controlnet-canny-sdxl-1.0 --base sd_xl_base_1.0.safetensors -o canny",
    configure=_configure_controlnet,
    run=_run_controlnet,
)
ip_adapter = Command(
    help="turn an IP-Adapter and its image encoder into a folder that is used beside an engine",
    example="pocketxl build-ip-adapter ip-adapter_sdxl_vit-h.safetensors --image-encoder image_encoder "
    "--base sd_xl_base_1.0.safetensors -o pictures",
    configure=_configure_ip_adapter,
    run=_run_ip_adapter,
)
t2i_adapter = Command(
    help="turn a T2I adapter into a folder that is used beside an engine",
    example="pocketxl build-t2i-adapter t2i-adapter-sketch-sdxl-1.0 --base sd_xl_base_1.0.safetensors -o sketch",
    configure=_configure_t2i_adapter,
    run=_run_t2i_adapter,
)
upscaler = Command(
    help="turn an upscaler (ESRGAN and its family) into a folder that is used beside an engine, or alone",
    example="pocketxl build-upscaler 4x-model.safetensors -o my-upscaler",
    configure=_configure_upscaler,
    run=_run_upscaler,
)
