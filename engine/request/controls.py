"""What a call asks of ControlNets: which of the loaded ones, by which picture, how much, and from when to when."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..hints.canny import canny
from ..hints.picture import read_picture
from .limits import number

IMAGE, SCALE, PREPROCESS = "control_image", "controlnet_conditioning_scale", "control_preprocess"
START, END = "control_guidance_start", "control_guidance_end"
PREPROCESSORS = {"canny": canny}
"""By name; each takes and gives `[height, width, 3]` of uint8."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ControlUse:
    """One ControlNet in one call."""

    name: str
    """Under which it was loaded."""
    hint: npt.NDArray[np.uint8]
    """`[height, width, 3]`, of the picture's size, preprocessed."""
    scale: float
    """What it adds is multiplied by this."""
    start: float
    """Share of the evaluations from which on it counts; likewise `end`, up to which."""
    end: float
    preprocess: str | None = None
    model: str = ""
    """What its folder is called, and the beginning of its digest."""

    def sized(self, height: int, width: int) -> "ControlUse":
        """The same for a picture of another size."""
        return replace(self, hint=read_picture(IMAGE, self.hint, height, width))

    def scales(self, evaluations: int) -> npt.NDArray[np.float32]:
        """`[evaluations]`: its scale at each, 0 where it does not count. diffusers' rule."""
        at = range(evaluations)
        counts = [i / evaluations >= self.start and (i + 1) / evaluations <= self.end for i in at]
        return np.where(counts, np.float32(self.scale), np.float32(0))


def control_uses(request: Any, loaded: Mapping[str, str], height: int, width: int) -> tuple[ControlUse, ...]:
    """The ControlNets of a call. `request` has the arguments as attributes; `loaded`: name → what pictures call it.

    Each argument is one value, a list in the order of `loaded`, or a mapping by name; one picture without a name goes
    to the only ControlNet. Raises `RequestError`, and what `read_picture` raises.
    """
    if request.control_image is None:
        given = [name for name in (SCALE, START, END, PREPROCESS) if getattr(request, name) is not None]
        if given:
            raise RequestError(f"{given[0]} was given without {IMAGE}; give the picture too")
        return ()
    if not loaded:
        raise RequestError(
            f"{IMAGE} was given, but no ControlNet is loaded; give Pipeline.load(..., controlnets={{name: folder}})"
        )
    pictures = _by_name(IMAGE, request.control_image, loaded)
    names = [name for name in loaded if pictures.get(name) is not None]
    values = {
        key: _by_name(key, getattr(request, key), loaded, all_of=names) for key in (SCALE, START, END, PREPROCESS)
    }
    return tuple(
        _use(name, loaded[name], pictures[name], {key: found.get(name) for key, found in values.items()}, height, width)
        for name in names
    )


def _use(name: str, model: str, picture: Any, values: Mapping[str, Any], height: int, width: int) -> ControlUse:
    start, end = (
        default if values[key] is None else number(key, values[key]) for key, default in ((START, 0.0), (END, 1.0))
    )
    if start >= end:
        raise RequestError(f"{START} is {start:g} and {END} {end:g} (of {name}); the start must come before the end")
    preprocess = values[PREPROCESS]
    if preprocess is not None and preprocess not in PREPROCESSORS:
        raise RequestError(f"{PREPROCESS} is {reprlib.repr(preprocess)}; choose {', '.join(PREPROCESSORS)} or None")
    hint = read_picture(f"{IMAGE} of {name}", picture, height, width)
    return ControlUse(
        name=name,
        model=model,
        hint=hint if preprocess is None else PREPROCESSORS[preprocess](hint),
        scale=1.0 if values[SCALE] is None else number(SCALE, values[SCALE]),
        start=start,
        end=end,
        preprocess=preprocess,
    )


def _by_name(key: str, value: Any, loaded: Mapping[str, str], all_of: Sequence[str] | None = None) -> Mapping[str, Any]:
    """Name → its value. One value is for all of `all_of`; without that, for the only one that is loaded."""
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in loaded]:
            raise RequestError(f"{key} names {reprlib.repr(unknown[0])}; loaded are {', '.join(loaded)}")
        return value
    if isinstance(value, list | tuple):
        if len(value) != len(loaded):
            raise RequestError(
                f"{key} has {len(value)} values for {len(loaded)} ControlNets; give one for each, by name"
            )
        return dict(zip(loaded, value, strict=True))
    if all_of is not None:
        return dict.fromkeys(all_of, value)
    if len(loaded) > 1:
        raise RequestError(f"{key} is one picture, and {len(loaded)} ControlNets are loaded; give {{name: picture}}")
    return dict.fromkeys(loaded, value)
