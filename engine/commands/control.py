"""`--control FOLDER=PICTURE:SCALE` and `--ip-adapter`: what steers a call, and what a picture says of its own."""

import argparse
import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..picture.control import Described, read_controls, read_weight
from ..request.controls import END, IMAGE, PREPROCESS, PREPROCESSORS, SCALE, START
from ..request.image_prompt import IMAGE as PICTURE
from ..request.image_prompt import SCALE as PICTURE_SCALE

_FORM = "FOLDER=PICTURE or FOLDER=PICTURE:SCALE"


def add_controls(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--control", action="append", default=[], metavar="FOLDER=PICTURE[:SCALE]",
        help="steer by this picture with the ControlNet in FOLDER (see `build-controlnet`), how much: 0 to 10 "
        "(default: 1); can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--control-preprocess", choices=PREPROCESSORS, help="what the pictures of --control are made into first"
    )
    parser.add_argument(
        "--ip-adapter", metavar="FOLDER=PICTURE[:SCALE]",
        help="a picture as a prompt beside the words, by the IP-Adapter in FOLDER (see `build-ip-adapter`), how much: "
        "0 to 10 (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--upscaler", metavar="FOLDER", help="what enlarges for --hires-scale (see `build-upscaler`; default: nothing)"
    )
    parser.add_argument("--control-start", type=float, help="share of the steps from which on they count (default: 0)")
    parser.add_argument("--control-end", type=float, help="share of the steps up to which they count (default: 1)")


class Controls:
    """What the flags come to."""

    def __init__(self, args: argparse.Namespace, made_with: Mapping[str, str] | None = None) -> None:
        """`made_with`: settings of the picture that this one is to be like; weights and shares come from there.

        Raises `RequestError` for a flag that is not of the form.
        """
        parts = [_parsed("--control", text) for text in args.control]
        names = _names([folder for folder, _, _ in parts])
        self._folders = {name: part[0] for name, part in zip(names, parts, strict=True)}
        if not parts:
            for flag in ("preprocess", "start", "end"):
                if getattr(args, f"control_{flag}") is not None:
                    raise RequestError(f"--control-{flag} was given without --control; give {_FORM} too")
        known = read_controls(made_with or {})
        known += [Described()] * max(0, len(parts) - len(known))
        self._given = dict(zip(names, zip(parts, known, strict=False), strict=True))
        self._args = args
        self._picture = None if args.ip_adapter is None else _parsed("--ip-adapter", args.ip_adapter)
        self._weight = read_weight(made_with or {})

    @property
    def folders(self) -> dict[str, Any]:
        """Keywords of `Pipeline.load`: ControlNets by name, the IP-Adapter and the upscaler."""
        adapter = None if self._picture is None else self._picture[0]
        return {"controlnets": self._folders, "ip_adapter": adapter, "upscaler": self._args.upscaler}

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of a call."""
        pictured: dict[str, Any] = {}
        if self._picture is not None:
            _, picture, scale = self._picture
            pictured = {PICTURE: picture, PICTURE_SCALE: _first(scale, self._weight)}
        if not self._given:
            return pictured
        args, given = self._args, self._given
        values: dict[str, dict[str, Any]] = {IMAGE: {}, SCALE: {}, START: {}, END: {}, PREPROCESS: {}}
        for name, ((_, picture, scale), like) in given.items():
            values[IMAGE][name] = picture
            values[SCALE][name] = _first(scale, like.weight)
            values[START][name] = _first(args.control_start, like.start)
            values[END][name] = _first(args.control_end, like.end)
            values[PREPROCESS][name] = _first(args.control_preprocess, like.module)
        return {**values, **pictured}


def _parsed(flag: str, text: str) -> tuple[str, str, float | None]:
    """Folder, picture, scale. A colon before anything but a number belongs to the picture's name."""
    folder, equals, rest = text.partition("=")
    if not (folder and equals and rest):
        raise RequestError(f"{flag} is {text!r}; give {_FORM}")
    picture, colon, number = rest.rpartition(":")
    try:
        scale = float(number) if colon and picture else math.nan
    except ValueError:
        scale = math.nan
    return (folder, rest, None) if math.isnan(scale) else (folder, picture, scale)


def _names(folders: Sequence[str]) -> list[str]:
    """A name for each: its folder's, with a number where that is another's already."""
    found: list[str] = []
    for folder in folders:
        name = "".join(c if c.isalnum() or c in " ._-" else "_" for c in Path(folder).resolve().name)[:48] or "control"
        name = name if name[0].isalnum() else f"_{name}"
        used = (f"{name}-{number}" for number in count(2))
        found.append(name if name not in found else next(other for other in used if other not in found))
    return found


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
