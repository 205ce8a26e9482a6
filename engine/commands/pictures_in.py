"""Flags for pictures as input, and the files that they name."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..pictures_in.files import open_picture
from ..request.request import ResolvedRequest
from .like import Like


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Declare them; the numbers that go with them are options like others."""
    parser.add_argument("--image", type=Path, metavar="FILE", help="begin from this picture instead of from noise")
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="in the size of --image: white is painted anew, black stays"
    )
    parser.add_argument(
        "--paste-back", action="store_true", help="take what is black in --mask from --image itself in the end"
    )
    parser.add_argument("--no-base", action="store_true", help="the refiner alone, on --image")


def pictures_of(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords that these flags stand for. Raises what `open_picture` raises."""
    found: dict[str, Any] = {}
    for name, path in (("image", args.image), ("mask_image", args.mask)):
        if path is not None:
            found[name] = open_picture(path)
    return found | ({"paste_back": True} if args.paste_back else {}) | ({"base": False} if args.no_base else {})


def hold_like(like: Like, args: argparse.Namespace) -> None:
    """Raise `RequestError` where `--like` names a picture that was made from others, and they are not given."""
    for flag, given, needed in zip(("image", "mask"), (args.image, args.mask), like.pictures_needed, strict=True):
        if needed and given is None:
            raise RequestError(
                f"{args.like} was made from {'a picture' if flag == 'image' else 'a mask'}, which it does not hold; "
                f"give it with --{flag} FILE"
            )


def other_pictures(like: Like, request: ResolvedRequest) -> Iterator[str]:
    """What to say where the pictures that are given are others than those that `--like`'s picture was made from."""
    if request.pictures is None:
        return
    found = ((request.pictures.digests, "--image"), (request.pictures.mask_digests, "--mask"))
    for (digests, flag), recorded in zip(found, like.picture_digests, strict=True):
        if digests and recorded is not None and recorded not in digests:
            yield f"{flag} is not what the picture was made from: its pixels are others"
