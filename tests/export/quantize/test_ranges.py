"""Static ranges: channels of different size, clipped halves of skips, and nothing cut off behind the layer."""

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from pocketxl.export.quantize.calibration import LayerStatistics
from pocketxl.export.quantize.formats import W8A8_STATIC
from pocketxl.export.quantize.layer_error import layer_error
from pocketxl.export.quantize.ranges import fit_ranges, static_error
from pocketxl.export.quantize.rounded import Floats
from pocketxl.export.quantize.unseen import beyond

PATCH = 9


def convolution(spread: Floats, read: Floats | None = None, seed: int = 0) -> tuple[Floats, LayerStatistics]:
    """A 3 x 3 convolution to 16 channels of different size; its input channels differ by `spread`.

    `read`: how much its weights for each channel differ.
    """
    random = np.random.default_rng(seed)
    channels = len(spread)
    weight = random.standard_normal((16, channels * PATCH), np.float32) * np.geomspace(0.1, 10, 16)[:, None]
    weight = (weight * np.repeat(np.ones(channels) if read is None else read, PATCH)).astype(np.float32)
    x = random.standard_normal((128, channels, PATCH), np.float32)
    return weight, run(weight, x / (1 + np.exp(-x)) * spread[:, None])


def run(weight: Floats, x: Floats) -> LayerStatistics:
    """What the layer shows on `[rows, channels, PATCH]`."""
    patches = x.reshape(len(x), -1).astype(np.float32)
    outputs = patches @ weight.T
    return LayerStatistics.of_run(
        patches, (x.min((0, 2)), x.max((0, 2))), (outputs.min(0), outputs.max(0)),
        output_energy=float(np.square(outputs).mean()), count=len(x),
    )  # fmt: skip


def relative(weight: Floats, seen: LayerStatistics) -> float:
    return float(np.sqrt(static_error(weight, None, seen, fit_ranges(weight, None, seen))))


def test_all_that_was_seen_behind_the_layer_has_a_number() -> None:
    weight, seen = convolution(np.ones(8, np.float32))
    found = fit_ranges(weight, None, seen)
    steps = np.rint((seen.inputs @ weight.T) / found.output_scale) + found.output_zero
    assert steps.min() >= 0
    assert steps.max() <= 255
    assert (found.input_scale > 0).all()
    assert 0 <= found.input_zero < 128, "behind SiLU most numbers are above 0"


def test_a_skip_whose_halves_differ_loses_hardly_more_than_one_whose_halves_are_alike() -> None:
    alike, different = np.ones(16, np.float32), np.repeat(np.array([1, 40], np.float32), 8)
    weight, seen = convolution(different, np.float32(1) / different)  # what is small counts as much
    tame = relative(*convolution(alike))
    assert relative(weight, seen) < 1.5 * tame
    one = float(seen.input_size.max())
    whole_range = np.rint(seen.inputs / (one / 127)) * (one / 127)
    lost = np.linalg.norm((whole_range - seen.inputs) @ weight.T) / np.linalg.norm(seen.inputs @ weight.T)
    assert lost > 5 * tame, "one range for both loses the small half"


def test_output_channels_of_any_size_lose_alike() -> None:
    weight, seen = convolution(np.ones(8, np.float32))
    found = fit_ranges(weight, None, seen)
    exact = seen.inputs @ weight.T
    steps = np.rint(exact / found.output_scale) * found.output_scale
    errors = np.linalg.norm(steps - exact, axis=0) / np.linalg.norm(exact, axis=0)
    assert errors.max() < 2 * errors.min()


def test_the_estimate_is_near_the_reference_arithmetic_of_the_format() -> None:
    weight, seen = convolution(np.geomspace(0.5, 20, 16).astype(np.float32))
    squared, reference = layer_error(weight, seen.inputs, W8A8_STATIC)
    assert relative(weight, seen) == pytest.approx(np.sqrt(squared / reference), rel=0.35)


def runs(*sizes: float, channels: int = 8) -> tuple[Floats, LayerStatistics]:
    """Runs whose inputs have these sizes, and the layer's weight."""
    random = np.random.default_rng(2)
    weight = random.standard_normal((16, channels * PATCH), np.float32)
    seen = [run(weight, size * random.standard_normal((1000, channels, PATCH), np.float32)) for size in sizes]
    sampled = [replace(one, inputs=one.inputs[:32], rows=np.array([32])) for one in seen]
    return weight, reduce(LayerStatistics.beside, sampled)


def room(*sizes: float) -> tuple[float, float]:
    """How far the ranges of input and output go beyond what was seen."""
    weight, seen = runs(*sizes)
    found, alone = (fit_ranges(weight, None, shown) for shown in (seen, seen + seen))
    return (
        float(found.input_scale[0] / alone.input_scale[0]),
        float(found.output_scale[0] / alone.output_scale[0]),
    )


def test_runs_that_are_alike_need_no_room() -> None:
    assert room(1, 1, 1, 1) == (1, 1)


@pytest.mark.parametrize("size", [1.8, 3.0])
def test_a_run_beyond_the_others_gives_room_for_the_next(size: float) -> None:
    assert min(room(1, size, 1, 1)) > 1.1


def test_how_far_one_run_went_beyond_all_others() -> None:
    def of(*sizes: float) -> float:
        high = np.full((len(sizes), 20), 1.0, np.float32) * np.array(sizes, np.float32)[:, None]
        high[0, 0] = 100  # of a channel that hardly did anything elsewhere
        return float(beyond(-0.5 * high, high))

    assert of(2, 3, 2) == 1.5
    assert of(2, 2) == 1
    assert of(2) == 1, "one run has nothing to be held against"
