"""Gaussian noise, one stream a picture, equal to torch's CPU generator.

The same seed gives the same starting latents as diffusers with `torch.Generator("cpu").manual_seed(seed)`, without
torch; and because every picture has a stream of its own, a picture is the same alone and inside a batch.
"""

from collections.abc import Sequence
from math import prod
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

BLOCK = 16
"""torch transforms uniform numbers to normal ones in blocks of sixteen: eight radii, then eight angles."""


class StandardNormal(Protocol):
    """Anything that draws like `numpy.random.Generator`: a picture's noise may come from the caller's own source."""

    def standard_normal(self, size: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Independent draws from N(0, 1)."""


class NoiseStream:
    """The stream of `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))`, draw after draw.

    `seed`: 0 to 2**64 - 1, as a request has checked it; as in torch only its low 32 bits count. Within 3 units in the
    last place (5e-7) of torch on AVX2 and AVX512, whose polynomials for log, sin and cos are that coarse.
    Source: ATen's `mt19937` engine and `normal_fill` (16 elements and more), `normal_distribution` (fewer).
    """

    def __init__(self, seed: int) -> None:
        self._engine = np.random.RandomState(seed & 0xFFFFFFFF)
        self._spare: float | None = None

    def normal(self, shape: Sequence[int]) -> Array:
        """Draw float32 values of N(0, 1) in `shape`; the stream moves on as torch's does."""
        count = prod(shape)
        values = self._blocks(count) if count >= BLOCK else self._pairs(count)
        return values.reshape(tuple(shape))

    def _bits(self, count: int) -> npt.NDArray[np.uint32]:
        return self._engine.randint(0, 2**32, size=count, dtype=np.uint32)

    def _blocks(self, count: int) -> Array:
        uniform = (self._bits(count) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)
        values = np.empty(count, np.float32)
        whole = count - count % BLOCK
        values[:whole] = _box_muller(uniform[:whole])
        if whole < count:
            # torch redraws the last sixteen, over the end of the last whole block.
            values[-BLOCK:] = _box_muller((self._bits(BLOCK) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24))
        return values

    def _pairs(self, count: int) -> Array:
        values = np.empty(count, np.float32)
        for i in range(count):
            if self._spare is not None:
                values[i], self._spare = self._spare, None
                continue
            angle, radius = (2 * np.pi * self._double(), np.sqrt(-2 * np.log1p(-self._double())))
            values[i], self._spare = radius * np.cos(angle), float(radius * np.sin(angle))
        return values

    def _double(self) -> float:
        high, low = (int(bits) for bits in self._bits(2))
        return ((high << 32 | low) & (2**53 - 1)) * 2.0**-53


def _box_muller(uniform: Array) -> Array:
    """Uniform numbers in [0, 1), a multiple of sixteen of them → as many normal ones."""
    blocks = uniform.reshape(-1, 2, BLOCK // 2)
    # The angle is rounded to float32 as in torch's vector code; all else is exact, so that what differs is torch's.
    angle = (np.float32(2 * np.pi) * blocks[:, 1]).astype(np.float64)
    radius = np.sqrt(-2 * np.log((np.float32(1) - blocks[:, 0]).astype(np.float64)))
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.astype(np.float32).reshape(-1)


class BatchNoise:
    """One noise source a picture: row i of every draw comes from source i alone.

    `sources` are seeds, `NoiseStream`s, or objects with numpy's `standard_normal` (say `numpy.random.default_rng(7)`).
    """

    def __init__(self, sources: Sequence[int | NoiseStream | StandardNormal]) -> None:
        self._sources = [NoiseStream(source) if isinstance(source, int) else source for source in sources]

    def __len__(self) -> int:
        return len(self._sources)

    def normal(self, shape: Sequence[int]) -> Array:
        """Draw (pictures, *shape) float32 values of N(0, 1); `shape` is one picture's."""
        return np.stack([_draw(source, tuple(shape)) for source in self._sources])


def _draw(source: NoiseStream | StandardNormal, shape: tuple[int, ...]) -> Array:
    if isinstance(source, NoiseStream):
        return source.normal(shape)
    return np.asarray(source.standard_normal(size=shape), dtype=np.float32)
