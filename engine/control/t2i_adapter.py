"""A T2I adapter's folder, opened beside an engine, and the features that it adds to a U-Net's stream.

They are made once a picture and are the same at every step that they count in; of several adapters they are added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..memory.controls import adapter_part
from ..request.t2i_adapters import AdapterUse
from ..runners.base import Runner, Value, call, check_outputs
from ..t2i_adapter import CUT, T2IAdapterArchitecture
from .folders import Kind, Steering

GREY = np.array([19595, 38470, 7471], np.int64)
"""Red, green and blue in grey, in units of 1/65536: PIL's."""
Arrays = Mapping[str, npt.NDArray[np.float32]]


class T2IAdapter(Steering[T2IAdapterArchitecture]):
    """One that is loaded beside an engine."""

    @property
    def encoder(self) -> Runner:
        """Picture → features."""
        return self.runners[adapter_part(self.name, "encoder")]


T2I_ADAPTERS = Kind(
    title="T2I adapter",
    argument="t2i_adapters",
    command="build-t2i-adapter",
    of=lambda companion: companion.t2i_adapter,
    part=adapter_part,
)


@dataclass(frozen=True, kw_only=True)
class AdapterPart:
    """One adapter with all that a part of the loop needs of it."""

    features: Arrays
    """Name of the U-Net's input → `[1, channels, h, w]`."""
    scales: npt.NDArray[np.float32]
    """`[evaluations]`"""


def adapter_pixels(hint: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.float32]:
    """`[height, width, 3]` → `[1, channels, height, width]` in [0, 1], the last pixels repeated up to whole squares.

    A U-Net rounds sizes up, so that features of the longer picture have its sizes.
    """
    picture = hint if channels == hint.shape[2] else ((hint @ GREY + (1 << 15)) >> 16).astype(np.uint8)[..., None]
    down, across = (-side % CUT for side in picture.shape[:2])
    padded = np.pad(picture, ((0, down), (0, across), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255))


def encode_features(adapter: T2IAdapter, use: AdapterUse) -> Arrays:
    """The features of a call's picture, by name of the U-Net's input. Raises `NumericError` for NaN or Inf."""
    outputs = call(adapter.encoder, {"image": adapter_pixels(use.hint, adapter.architecture.hint_channels)})
    check_outputs(adapter.encoder.name, outputs)
    return {name: np.asarray(value) for name, value in outputs.items()}


class Features:
    """Evaluation → inputs of the U-Net, by name: nothing where no adapter counts."""

    def __init__(self, parts: Sequence[AdapterPart]) -> None:
        self._parts = parts
        self._scales: tuple[float, ...] = ()
        self._sum: dict[str, Value] = {}

    def __call__(self, evaluation: int) -> dict[str, Value]:
        """The sum of all, each multiplied by its scale; the same arrays while the scales stay."""
        scales = tuple(float(part.scales[evaluation]) for part in self._parts)
        if scales != self._scales:
            self._scales, self._sum = scales, self._summed(scales)
        return self._sum

    def counting(self, evaluation: int) -> tuple[bool, ...]:
        """Which of the adapters count there."""
        return tuple(bool(part.scales[evaluation]) for part in self._parts)

    def _summed(self, scales: tuple[float, ...]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for part, scale in zip(self._parts, scales, strict=True):
            for name, features in part.features.items() if scale else ():
                scaled = features * np.float32(scale)
                found[name] = np.asarray(found[name]) + scaled if name in found else scaled
        return found
