"""A picture in tiles is the picture as a whole, and comes down to the size that was asked for."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketxl.engine.errors import NumericError
from pocketxl.engine.runners.base import call
from pocketxl.engine.upscaler import TILE, UpscalerArchitecture, UpscalerKind, rounds
from pocketxl.engine.upscaling.enlarge import enlarged, tiles_of, unshuffled
from pocketxl.engine.upscaling.opened import open_upscaler
from pocketxl.export.reference.steered import colours

from ...tolerances import SEAM


def doubling(unshuffle: int = 1) -> tuple[Any, UpscalerArchitecture]:
    """A runner that makes two pixels of each in either direction, and the numbers of such a network."""
    numbers = UpscalerArchitecture(
        kind=UpscalerKind.ESRGAN, scale=2 * unshuffle, width=1, blocks=1, growth=1, unshuffle=unshuffle
    )

    def run(inputs: Mapping[str, np.ndarray], held: object = None) -> dict[str, np.ndarray]:
        one, _, height, width = inputs["tile"].shape
        cut = inputs["tile"].reshape(3, unshuffle, unshuffle, height, width).transpose(0, 3, 1, 4, 2)
        pixels = cut.reshape(one, 3, height * unshuffle, width * unshuffle)
        return {"larger": pixels.repeat(2, axis=2).repeat(2, axis=3)}

    run.name = "upscaler"  # type: ignore[attr-defined]
    return run, numbers


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 500), width=st.integers(1, 500), block=st.sampled_from([1, 2, 4]))
def test_every_pixel_comes_out_at_its_place(height: int, width: int, block: int) -> None:
    runner, numbers = doubling(block)
    picture = np.random.default_rng(height).integers(256, size=(height, width, 3)).astype(np.uint8)
    ticks: list[int] = []
    made = enlarged(runner, numbers, picture, (2 * height, 2 * width), lambda: ticks.append(1))
    assert np.array_equal(made, picture.repeat(2, axis=0).repeat(2, axis=1))
    assert len(ticks) == tiles_of(numbers, height, width, (2 * height, 2 * width))


def test_it_goes_through_again_while_it_is_too_small_and_comes_down_by_lanczos() -> None:
    runner, numbers = doubling()
    picture = colours(10, 14)
    four = picture.repeat(4, axis=0).repeat(4, axis=1)
    expected = np.asarray(Image.fromarray(four).resize((42, 30), Image.Resampling.LANCZOS))
    assert np.array_equal(enlarged(runner, numbers, picture, (30, 42), lambda: None), expected)


@pytest.mark.parametrize(
    ("factor", "wanted", "sides"),
    [
        (4, (20, 20), [(10, 10)]),
        (4, (41, 40), [(10, 10), (40, 40)]),
        (2, (160, 160), [(10, 10), (20, 20), (40, 40), (80, 80)]),
        (1, (40, 40), [(10, 10)]),
        (4, (5, 5), [(10, 10)]),
    ],
)
def test_rounds(factor: int, wanted: tuple[int, int], sides: list[tuple[int, int]]) -> None:
    assert rounds(10, 10, wanted, factor) == sides


def test_there_is_no_seam(tiny_upscaler: tuple[Any, Any]) -> None:
    """Against the whole picture in one call; tiles side by side, without what they share, are far from it."""
    opened = open_upscaler(tiny_upscaler[1], threads=1)
    numbers, side = opened.known.architecture, TILE + 60
    noise = np.random.default_rng(0).integers(0, 40, (side, side, 3))
    picture = (colours(side, side) // 2 + noise).astype(np.uint8)

    def network(pixels: np.ndarray) -> np.ndarray:
        made = call(opened.runner, {"tile": unshuffled(pixels, 1)})["larger"][0].transpose(1, 2, 0)
        rounded: np.ndarray = (made.clip(0, 1) * 255).round().astype(np.uint8)
        return rounded

    whole, half = network(picture), side // 2
    assert whole.std() > 20
    tiled = enlarged(opened.runner, numbers, picture, (4 * side, 4 * side), lambda: None)
    cut = np.concatenate([network(picture[:, :half]), network(picture[:, half:])], axis=1)
    assert np.abs(tiled.astype(int) - whole).max() <= SEAM
    assert np.abs(cut.astype(int) - whole).max() > 20 * SEAM


def test_nan_is_an_error() -> None:
    runner, numbers = doubling()
    broken: Any = SimpleNamespace(name="upscaler")

    def run(inputs: Mapping[str, np.ndarray], held: object = None) -> dict[str, np.ndarray]:
        return {name: array * np.float32(np.nan) for name, array in runner(inputs).items()}

    run.name = broken.name  # type: ignore[attr-defined]
    with pytest.raises(NumericError, match="upscaler gave NaN or Inf"):
        enlarged(run, numbers, colours(8, 8), (16, 16), lambda: None)  # type: ignore[arg-type]
