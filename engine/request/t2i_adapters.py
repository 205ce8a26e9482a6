"""What a call asks of T2I adapters: which of the loaded ones, by which picture, how much, and up to when."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..hints.picture import read_picture
from .controls import PREPROCESSORS, Loaded, by_name, preprocessor
from .limits import number

IMAGE, SCALE, FACTOR = "adapter_image", "adapter_conditioning_scale", "adapter_conditioning_factor"
PREPROCESS = "adapter_preprocess"


@dataclass(frozen=True, eq=False, kw_only=True)
class AdapterUse:
    """One T2I adapter in one call."""

    name: str
    """Under which it was loaded."""
    hint: npt.NDArray[np.uint8]
    """`[height, width, 3]`, of the picture's size, preprocessed."""
    scale: float
    """Its features are multiplied by this."""
    factor: float
    """Share of the evaluations up to which it counts."""
    preprocess: str | None = None
    model: str = ""
    """What its folder is called, and the beginning of its digest."""

    def sized(self, height: int, width: int) -> "AdapterUse":
        """The same for a picture of another size."""
        return replace(self, hint=read_picture(IMAGE, self.hint, height, width))

    def scales(self, evaluations: int) -> npt.NDArray[np.float32]:
        """`[evaluations]`: its scale at each, 0 where it does not count. diffusers' rule."""
        counts = np.arange(evaluations) < int(evaluations * self.factor)
        return np.where(counts, np.float32(self.scale), np.float32(0))


def adapter_uses(request: Any, loaded: Mapping[str, Loaded], height: int, width: int) -> tuple[AdapterUse, ...]:
    """The T2I adapters of a call; arguments as those of `control_uses`. Raises as it does."""
    if request.adapter_image is None:
        if given := [name for name in (SCALE, FACTOR, PREPROCESS) if getattr(request, name) is not None]:
            raise RequestError(f"{given[0]} was given without {IMAGE}; give the picture too")
        return ()
    if not loaded:
        raise RequestError(
            f"{IMAGE} was given, but no T2I adapter is loaded; give Pipeline.load(..., t2i_adapters={{name: folder}})"
        )
    what = "T2I adapter"
    pictures = by_name(IMAGE, request.adapter_image, loaded, what=what)
    names = [name for name in loaded if pictures.get(name) is not None]
    values = {
        key: by_name(key, getattr(request, key), loaded, all_of=names, what=what) for key in (SCALE, FACTOR, PREPROCESS)
    }
    return tuple(
        _use(name, loaded[name], pictures[name], {key: found.get(name) for key, found in values.items()}, height, width)
        for name in names
    )


def _use(name: str, loaded: Loaded, picture: Any, values: Mapping[str, Any], height: int, width: int) -> AdapterUse:
    scale, factor = (1.0 if values[key] is None else number(key, values[key]) for key in (SCALE, FACTOR))
    preprocess = preprocessor(PREPROCESS, values[PREPROCESS])
    hint = read_picture(f"{IMAGE} of {name}", picture, height, width)
    return AdapterUse(
        name=name,
        model=loaded.model,
        hint=hint if preprocess is None else PREPROCESSORS[preprocess](hint),
        scale=scale,
        factor=factor,
        preprocess=preprocess,
    )
