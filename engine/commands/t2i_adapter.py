"""`--t2i-adapter FOLDER=PICTURE:SCALE`: T2I adapters of a call, and what a picture says of its own."""

import argparse
from collections.abc import Mapping
from typing import Any

from ..errors import RequestError
from ..picture.control import T2I_ADAPTER, Described, read_controls
from ..request.controls import PREPROCESSORS
from ..request.t2i_adapters import FACTOR, IMAGE, PREPROCESS, SCALE
from .steering import FORM, first, names_of, parsed


def add_adapters(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--t2i-adapter", action="append", default=[], metavar="FOLDER=PICTURE[:SCALE]",
        help="steer by this picture with the T2I adapter in FOLDER (see `build-t2i-adapter`), how much: 0 to 10 "
        "(default: 1); can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--t2i-adapter-factor", type=float, help="share of the steps up to which they count, 0 to 1 (default: 1)"
    )
    parser.add_argument(
        "--t2i-adapter-preprocess", choices=PREPROCESSORS, help="what the pictures of --t2i-adapter are made into first"
    )


class Adapters:
    """What the flags come to."""

    def __init__(self, args: argparse.Namespace, made_with: Mapping[str, str]) -> None:
        """`made_with`: settings of the picture that this one is to be like. Raises `RequestError`."""
        parts = [parsed("--t2i-adapter", text) for text in args.t2i_adapter]
        if not parts:
            for flag in ("factor", "preprocess"):
                if getattr(args, f"t2i_adapter_{flag}") is not None:
                    raise RequestError(f"--t2i-adapter-{flag} was given without --t2i-adapter; give {FORM} too")
        known = read_controls(made_with, T2I_ADAPTER)
        known += [Described()] * max(0, len(parts) - len(known))
        names = names_of([folder for folder, _, _ in parts])
        self._given = dict(zip(names, zip(parts, known, strict=False), strict=True))
        self._args = args

    @property
    def folders(self) -> dict[str, str]:
        """By name, for `Pipeline.load`."""
        return {name: folder for name, ((folder, _, _), _) in self._given.items()}

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of a call."""
        if not self._given:
            return {}
        args, values = self._args, {key: {} for key in (IMAGE, SCALE, FACTOR, PREPROCESS)}  # type: ignore[var-annotated]
        for name, ((_, picture, scale), like) in self._given.items():
            values[IMAGE][name] = picture
            values[SCALE][name] = first(scale, like.weight)
            values[FACTOR][name] = first(args.t2i_adapter_factor, like.end)
            values[PREPROCESS][name] = first(args.t2i_adapter_preprocess, like.module)
        return values
