"""What a call asks of ControlNets: which of the loaded ones, by which pictures, how much, and from when to when."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..hints.canny import canny
from ..hints.picture import read_picture
from .control_modes import MODE, missing, mode_of
from .limits import number

IMAGE, SCALE, PREPROCESS = "control_image", "controlnet_conditioning_scale", "control_preprocess"
START, END = "control_guidance_start", "control_guidance_end"
PREPROCESSORS = {"canny": canny}
"""By name; each takes and gives `[height, width, 3]` of uint8."""
_OF_HINTS = (IMAGE, SCALE, MODE)
"""What each hint of a union has of its own."""
MOST_HINTS = 8
"""Of one union."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a request knows of a ControlNet that is loaded."""

    model: str
    """What pictures call it."""
    kinds: int = 0
    """Kinds of hints that it tells apart; 0: it is no ControlNet-Union."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Hint:
    """One picture that a ControlNet goes by."""

    picture: npt.NDArray[np.uint8]
    """`[height, width, 3]`, of the picture's size, preprocessed."""
    scale: float
    """How much it counts."""
    mode: int | None = None
    """Its kind, for a ControlNet-Union."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ControlUse:
    """One ControlNet in one call."""

    name: str
    """Under which it was loaded."""
    hints: tuple[Hint, ...]
    """One; of a ControlNet-Union perhaps several."""
    start: float
    """Share of the evaluations from which on it counts; likewise `end`, up to which."""
    end: float
    preprocess: str | None = None
    model: str = ""
    """What its folder is called, and the beginning of its digest."""
    kinds: int = 0
    """As of `Loaded`."""

    @property
    def hint_scales(self) -> tuple[float, ...]:
        """By what each hint is multiplied where it is encoded: among several its own scale, as in diffusers."""
        return (1.0,) if len(self.hints) == 1 else tuple(hint.scale for hint in self.hints)

    @property
    def control_type(self) -> npt.NDArray[np.float32] | None:
        """What a union is told of its hints, `[kinds]` of 0 and 1; None for one that is none."""
        if not self.kinds:
            return None
        found = np.zeros(self.kinds, np.float32)
        found[[hint.mode for hint in self.hints if hint.mode is not None]] = 1
        return found

    def sized(self, height: int, width: int) -> "ControlUse":
        """The same for a picture of another size."""
        hints = (replace(hint, picture=read_picture(IMAGE, hint.picture, height, width)) for hint in self.hints)
        return replace(self, hints=tuple(hints))

    def scales(self, evaluations: int) -> npt.NDArray[np.float32]:
        """`[evaluations]`: what it gives is multiplied by this at each, 0 where it does not count. diffusers' rule."""
        at = range(evaluations)
        counts = [i / evaluations >= self.start and (i + 1) / evaluations <= self.end for i in at]
        whole = self.hints[0].scale if len(self.hints) == 1 else float(any(hint.scale for hint in self.hints))
        return np.where(counts, np.float32(whole), np.float32(0))


def control_uses(request: Any, loaded: Mapping[str, Loaded], height: int, width: int) -> tuple[ControlUse, ...]:
    """The ControlNets of a call. `request` has the arguments as attributes; `loaded`: by name.

    Each argument is one value, a list in the order of `loaded`, or a mapping by name; one picture without a name goes
    to the only ControlNet, and a list to the only one if that is a union. Raises `RequestError`, and what
    `read_picture` raises.
    """
    if request.control_image is None:
        given = [name for name in (SCALE, START, END, PREPROCESS, MODE) if getattr(request, name) is not None]
        if given:
            raise RequestError(f"{given[0]} was given without {IMAGE}; give the picture too")
        return ()
    if not loaded:
        raise RequestError(
            f"{IMAGE} was given, but no ControlNet is loaded; give Pipeline.load(..., controlnets={{name: folder}})"
        )
    pictures = by_name(IMAGE, request.control_image, loaded)
    names = [name for name in loaded if pictures.get(name) is not None]
    values = {key: by_name(key, getattr(request, key), loaded, all_of=names) for key in (SCALE, START, END, PREPROCESS)}
    values[MODE] = _modes(request.control_mode, loaded, names)
    return tuple(
        _use(name, loaded[name], pictures[name], {key: found.get(name) for key, found in values.items()}, height, width)
        for name in names
    )


def _modes(value: Any, loaded: Mapping[str, Loaded], names: Sequence[str]) -> Mapping[str, Any]:
    """Name → the kind of its hint, or of each. One value is for all unions."""
    unions = [name for name in names if loaded[name].kinds]
    if value is not None and not unions:
        raise RequestError(
            f"{MODE} was given, and {', '.join(names) or 'what is loaded'} is no ControlNet-Union; leave it out"
        )
    found = by_name(MODE, value, loaded, all_of=unions)
    if wrong := [name for name in found if found[name] is not None and not loaded[name].kinds]:
        raise RequestError(f"{MODE} names {wrong[0]}, which is no ControlNet-Union; leave it out (--control-type none)")
    return found


def _use(name: str, loaded: Loaded, picture: Any, values: Mapping[str, Any], height: int, width: int) -> ControlUse:
    start, end = (
        default if values[key] is None else number(key, values[key]) for key, default in ((START, 0.0), (END, 1.0))
    )
    if start >= end:
        raise RequestError(f"{START} is {start:g} and {END} {end:g} (of {name}); the start must come before the end")
    preprocess = preprocessor(PREPROCESS, values[PREPROCESS])
    several = bool(loaded.kinds) and isinstance(picture, list | tuple)
    pictures = list(picture) if several else [picture]
    if not 1 <= len(pictures) <= MOST_HINTS:
        raise RequestError(f"{IMAGE} of {name} has {len(pictures)} pictures; give 1 to {MOST_HINTS}")
    modes, scales = (_each(key, name, values[key], len(pictures)) for key in (MODE, SCALE))
    hints = []
    for one, mode, scale in zip(pictures, modes, scales, strict=True):
        if loaded.kinds and mode is None:
            raise missing(loaded.kinds, name)
        hint = read_picture(f"{IMAGE} of {name}", one, height, width)
        hints.append(
            Hint(
                picture=hint if preprocess is None else PREPROCESSORS[preprocess](hint),
                scale=1.0 if scale is None else number(SCALE, scale),
                mode=mode_of(mode, loaded.kinds, name) if loaded.kinds else None,
            )
        )
    return ControlUse(
        name=name,
        model=loaded.model,
        hints=tuple(hints),
        start=start,
        end=end,
        preprocess=preprocess,
        kinds=loaded.kinds,
    )


def _each(key: str, name: str, value: Any, count: int) -> list[Any]:
    """A value for each picture of one union: its own, or one for all."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise RequestError(f"{key} of {name} has {len(value)} values for {count} pictures; give one for each")
    return list(value)


def preprocessor(key: str, name: Any) -> str | None:
    """The name of a preprocessor, or None. Raises `RequestError`."""
    if name is None or (isinstance(name, str) and name in PREPROCESSORS):
        return name
    raise RequestError(f"{key} is {reprlib.repr(name)}; choose {', '.join(PREPROCESSORS)} or None")


def by_name(
    key: str, value: Any, loaded: Mapping[str, Loaded], all_of: Sequence[str] | None = None, *, what: str = "ControlNet"
) -> Mapping[str, Any]:
    """Name → its value. One value is for all of `all_of`; without that, for the only one that is loaded."""
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in loaded]:
            raise RequestError(f"{key} names {reprlib.repr(unknown[0])}; loaded are {', '.join(loaded)}")
        return value
    if isinstance(value, list | tuple):
        if key in _OF_HINTS and [one.kinds > 0 for one in loaded.values()] == [True]:
            return dict.fromkeys(loaded, value)
        if len(value) != len(loaded):
            raise RequestError(f"{key} has {len(value)} values for {len(loaded)} {what}s; give one for each, by name")
        return dict(zip(loaded, value, strict=True))
    if all_of is not None:
        return dict.fromkeys(all_of, value)
    if len(loaded) > 1:
        raise RequestError(f"{key} is one picture, and {len(loaded)} {what}s are loaded; give {{name: picture}}")
    return dict.fromkeys(loaded, value)
