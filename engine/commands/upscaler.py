"""`--upscaler FOLDER` of `generate` and `plan`: whether it has something to do, and what a picture says of its own."""

import argparse
from collections.abc import Iterator

from ..errors import RequestError
from ..request.hires import HASH
from ..request.request import ResolvedRequest
from .like import Like


def hold_upscaler(args: argparse.Namespace, request: ResolvedRequest) -> None:
    """Raise `RequestError` where the flag was given for nothing."""
    if args.upscaler is None or (request.hires is not None and request.hires.network is not None):
        return
    if request.hires is None:
        raise RequestError("--upscaler was given without --hires-scale; say how much larger the picture is to be")
    raise RequestError(f"--upscaler and --hires-upscaler {request.hires.upscaler} were both given; give one of them")


def other_upscaler(like: Like, request: ResolvedRequest) -> Iterator[str]:
    """What to say where another network enlarges than that of the picture that this one is to be like."""
    network = None if request.hires is None else request.hires.network
    recorded = like.settings.get(HASH)
    if network is not None and recorded is not None and recorded != network.hash:
        yield f"--upscaler is not what the picture was enlarged by: its hash is {network.hash}, the other's {recorded}"
