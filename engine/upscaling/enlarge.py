"""A picture through an upscaler's network: tile by tile, each row of tiles finished before the next one is begun."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..pictures_in.fit import fitted
from ..pictures_in.input import Array
from ..runners.base import Runner, call, check_outputs
from ..upscaler import COLOURS, UpscalerArchitecture, rounds
from ..vae import to_uint8
from .tiles import Tiles

Pixels = npt.NDArray[np.uint8]


def enlarged(
    runner: Runner,
    architecture: UpscalerArchitecture,
    picture: Pixels,
    size: tuple[int, int],
    advance: Callable[[], None],
) -> Pixels:
    """A picture (H, W, 3) → one of `size`, (height, width).

    It goes through the network until it is at least as large, and what is too large comes down by Pillow's Lanczos
    filter, as in AUTOMATIC1111. `advance` is called after each tile. Raises `NumericError` for NaN or Inf.
    """
    height, width, _ = picture.shape
    for _ in rounds(height, width, size, architecture.factor):
        picture = _once(runner, architecture, picture, advance)
    return np.asarray(fitted(picture, *size))


def tiles_of(architecture: UpscalerArchitecture, height: int, width: int, size: tuple[int, int]) -> int:
    """How many tiles `enlarged` takes for a picture of that height and width."""
    sides = rounds(height, width, size, architecture.factor)
    return sum(len(down.starts) * len(across.starts) for down, across in (_grid(architecture, *side) for side in sides))


def _once(runner: Runner, architecture: UpscalerArchitecture, picture: Pixels, advance: Callable[[], None]) -> Pixels:
    """(H, W, 3) → (factor · H, factor · W, 3)."""
    height, width, _ = picture.shape
    scale, factor = architecture.scale, architecture.factor
    down, across = _grid(architecture, height, width)
    whole = np.empty(
        (scale * (down.starts[-1] + down.side), scale * (across.starts[-1] + across.side), COLOURS), np.uint8
    )
    read = _whole_blocks(picture, architecture.unshuffle)
    band = np.zeros((COLOURS, scale * down.side, whole.shape[1]), np.float32)
    for index, (start, counts) in enumerate(zip(down.starts, down.weights(scale), strict=True)):
        for left, larger in _row(runner, architecture, read, start, down.side, across):
            band[:, :, left : left + larger.shape[2]] += larger * counts[:, None]
            advance()
        done = (down.starts[index + 1] - start if index + 1 < len(down.starts) else down.side) * scale
        finished = np.clip(band[:, :done], 0, 1)
        whole[start * scale : start * scale + done] = to_uint8(finished).transpose(1, 2, 0)
        band = np.concatenate([band[:, done:], np.zeros_like(band[:, :done])], axis=1)
    return np.ascontiguousarray(whole[: factor * height, : factor * width])


def _row(
    runner: Runner, architecture: UpscalerArchitecture, read: Pixels, top: int, side: int, across: Tiles
) -> Iterator[tuple[int, Array]]:
    """Of a row of tiles each one's output, with how much it counts across, and where it begins."""
    block, scale = architecture.unshuffle, architecture.scale
    for left, counts in zip(across.starts, across.weights(scale), strict=True):
        pixels = read[top * block : (top + side) * block, left * block : (left + across.side) * block]
        outputs = call(runner, {"tile": unshuffled(pixels, block)})
        check_outputs(runner.name, outputs)
        yield left * scale, outputs["larger"][0] * counts


def _grid(architecture: UpscalerArchitecture, height: int, width: int) -> tuple[Tiles, Tiles]:
    block = architecture.unshuffle
    return Tiles.along(-(-height // block)), Tiles.along(-(-width // block))


def _whole_blocks(picture: Pixels, block: int) -> Pixels:
    """The picture, mirrored below and to the right to a multiple of `block`."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, -height % block), (0, -width % block), (0, 0)), mode="reflect")


def unshuffled(pixels: Pixels, block: int) -> Array:
    """(H, W, 3) of uint8 → `[1, 3 · block², H / block, W / block]` in [0, 1]; torch's `pixel_unshuffle`."""
    height, width, colours = pixels.shape
    cut = pixels.reshape(height // block, block, width // block, block, colours).transpose(4, 1, 3, 0, 2)
    flat = cut.reshape(1, colours * block * block, height // block, width // block)
    return np.ascontiguousarray(flat.astype(np.float32) / np.float32(255))
