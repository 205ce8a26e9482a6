"""`pocketxl upscale`: a picture in, a larger one out, by an upscaler alone."""

import argparse
import sys
from pathlib import Path

from ..memory.sizes import format_bytes
from ..picture.files import FORMATS, QUALITY, SUFFIXES, read_settings
from ..pictures_in.files import open_picture
from ..progress import Bars, JsonLines, Progress, Silent
from ..upscaling.upscaler import Upscaler
from .base import Command, emit, say
from .destination import Destination

BY, NAME, HASH = "Postprocess upscale by", "Postprocess upscaler", "Postprocess upscaler hash"
"""AUTOMATIC1111's names, of what its tab Extras does, but for the last."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", type=Path, help="any that Pillow reads; what is transparent lies on white")
    parser.add_argument("-o", "--output", required=True, help=f"picture to write ({', '.join(SUFFIXES)})")
    parser.add_argument("--upscaler", required=True, metavar="FOLDER", help="what `build-upscaler` made")
    parser.add_argument("--scale", type=float, help="how much larger, 1 to 16 (default: the upscaler's own factor)")
    parser.add_argument("--overwrite", action="store_true", help="let the picture replace one of the same name")
    parser.add_argument("--quality", type=int, help=f"of .jpg and .webp, 1 to 100 (default: {QUALITY})")
    parser.add_argument("--plan", action="store_true", help="say what memory it would take, and make nothing")
    parser.add_argument("--threads", type=int, help="threads inside one operator (default: as `doctor` says)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no warnings")
    parser.add_argument("--json", action="store_true", help="progress and result as one JSON object per line")


def _run(args: argparse.Namespace) -> int:
    picture = open_picture(args.picture)
    with Upscaler.load(args.upscaler, threads=args.threads) as upscaler:
        height, width = upscaler.size(picture.height, picture.width, args.scale)
        if args.plan:
            peak = upscaler.plan(picture.height, picture.width, args.scale)
            _tell(args, "plan", f"predicted peak for {width}x{height}: {format_bytes(peak)}", peak_bytes=peak,
                  width=width, height=height)  # fmt: skip
            return 0
        destination = Destination.of(args.output, 1, overwrite=args.overwrite)
        destination.check_quality(args.quality)
        destination.try_out(3 * height * width)
        made = upscaler(picture, scale=args.scale, output_type="np", progress=_progress(args))
        scale = f"{float(upscaler.factor if args.scale is None else args.scale):g}"
        told = {BY: scale, NAME: upscaler.name, HASH: upscaler.hash}
        path = destination.write(made, {**_settings(args), **told}, args.quality)
    _tell(args, "picture", str(path), path=str(path), width=made.shape[1], height=made.shape[0])
    return 0


def _settings(args: argparse.Namespace) -> dict[str, str]:
    """Those inside the picture, if it is of a format that holds some."""
    with args.picture.open("rb") as file:
        head = file.read(16)
    return read_settings(args.picture) if any(row.begins(head) for row in FORMATS) else {}


def _progress(args: argparse.Namespace) -> Progress:
    if args.json:
        return JsonLines(sys.stdout)
    return Silent() if args.quiet else Bars()


def _tell(args: argparse.Namespace, event: str, text: str, **fields: object) -> None:
    if args.json:
        emit(event, **fields)
    else:
        say(text)


command = Command(
    help="make a picture larger by an upscaler (ESRGAN and its family)",
    example="pocketxl upscale photo.jpg -o larger.png --upscaler my-upscaler --scale 2",
    configure=_configure,
    run=_run,
)
