"""`--control FOLDER=PICTURE:SCALE` and `--ip-adapter`: what steers a call, and what a picture says of its own."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError
from ..picture.control import Described, read_controls, read_weight
from ..request.control_modes import MODE, NUMBERS
from ..request.controls import END, IMAGE, PREPROCESS, PREPROCESSORS, SCALE, START
from ..request.image_prompt import IMAGE as PICTURE
from ..request.image_prompt import SCALE as PICTURE_SCALE
from .steering import FORM, first, names_of, parsed
from .t2i_adapter import Adapters, add_adapters

_NO_TYPE = "none"


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
        "--control-type", action="append", default=[], metavar="TYPE",
        help=f"what the picture of a ControlNet-Union is: {', '.join(NUMBERS)}, or a number; once, or once for each "
        f"--control ('{_NO_TYPE}' for one that is no union): the same union with several pictures has them at once",
    )  # fmt: skip
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
    add_adapters(parser)


class Controls:
    """What the flags come to."""

    def __init__(self, args: argparse.Namespace, made_with: Mapping[str, str] | None = None) -> None:
        """`made_with`: settings of the picture that this one is to be like; weights and shares come from there.

        Raises `RequestError` for a flag that is not of the form.
        """
        parts = [parsed("--control", text) for text in args.control]
        if not parts:
            for flag in ("preprocess", "start", "end", "type"):
                if getattr(args, f"control_{flag}") not in (None, []):
                    raise RequestError(f"--control-{flag} was given without --control; give {FORM} too")
        known = read_controls(made_with or {})
        known += [Described()] * max(0, len(parts) - len(known))
        modes = _modes(args.control_type, [one.mode for one in known[: len(parts)]])
        given = [
            _Given(folder=folder, picture=picture, scale=scale, mode=mode, like=like)
            for (folder, picture, scale), mode, like in zip(parts, modes, known, strict=False)
        ]
        groups = _grouped(given)
        names = names_of([group[0].folder for group in groups])
        self._given = dict(zip(names, groups, strict=True))
        self._folders = {name: group[0].folder for name, group in self._given.items()}
        self._args = args
        self._picture = None if args.ip_adapter is None else parsed("--ip-adapter", args.ip_adapter)
        self._weight = read_weight(made_with or {})
        self._adapters = Adapters(args, made_with or {})

    @property
    def folders(self) -> dict[str, Any]:
        """Keywords of `Pipeline.load`: ControlNets and T2I adapters by name, the IP-Adapter and the upscaler."""
        return {
            "controlnets": self._folders,
            "ip_adapter": None if self._picture is None else self._picture[0],
            "t2i_adapters": self._adapters.folders,
            "upscaler": self._args.upscaler,
        }

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of a call."""
        pictured = self._adapters.options
        if self._picture is not None:
            _, picture, scale = self._picture
            pictured |= {PICTURE: picture, PICTURE_SCALE: first(scale, self._weight)}
        if not self._given:
            return pictured
        args, given = self._args, self._given
        keys = (IMAGE, SCALE, MODE, START, END, PREPROCESS)
        values: dict[str, Any] = {key: {} for key in keys}
        for name, hints in given.items():
            like = hints[0].like
            values[IMAGE][name] = _one_or_all([hint.picture for hint in hints])
            values[SCALE][name] = _one_or_all([first(hint.scale, hint.like.weight) for hint in hints])
            values[MODE][name] = _one_or_all([hint.mode for hint in hints])
            values[START][name] = first(args.control_start, like.start)
            values[END][name] = first(args.control_end, like.end)
            values[PREPROCESS][name] = first(args.control_preprocess, like.module)
        if not any(hint.mode for hints in given.values() for hint in hints):
            del values[MODE]
        elif len(args.control_type) == 1:
            # For every union, whichever of them those are; what no union is was not meant.
            values[MODE] = args.control_type[0]
        return {**values, **pictured}


@dataclass(frozen=True, kw_only=True)
class _Given:
    """One `--control`."""

    folder: str
    picture: str
    scale: float | None
    mode: str | None
    like: Described


def _modes(given: Sequence[str], known: Sequence[str | None]) -> list[str | None]:
    """The type of each `--control`: as given, once or once for each, or as the picture that this is like says."""
    if not given:
        return list(known)
    if len(given) not in (1, len(known)):
        raise RequestError(
            f"--control-type was given {len(given)} times for {len(known)} --control; give it once, or once for each"
        )
    types = [None if one == _NO_TYPE else one for one in given]
    return types * len(known) if len(types) == 1 else types


def _grouped(given: Sequence[_Given]) -> list[list[_Given]]:
    """Hints by ControlNet: those of one folder together where they have types, which only unions have."""
    found: list[list[_Given]] = []
    for one in given:
        known = next((group for group in found if one.mode and group[0].mode and group[0].folder == one.folder), None)
        if known is None:
            found.append([one])
        else:
            known.append(one)
    return found


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
