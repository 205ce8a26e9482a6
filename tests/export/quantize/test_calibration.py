"""Statistics add up, follow factors, and survive a file."""

import io

import numpy as np

from pocketxl.export.quantize.calibration import (
    LEAST_ROOM,
    MOST_ROOM,
    Calibration,
    LayerStatistics,
    with_room,
)

from ...fixtures.calibration import assert_equal, shown


def layer(seed: int, rows: int = 5) -> LayerStatistics:
    random = np.random.default_rng(seed)
    return shown(random.standard_normal((rows, 4), np.float32), random.standard_normal((rows, 3), np.float32))


def test_two_runs_together_are_one_of_all_their_rows() -> None:
    one, other = layer(0, 5), layer(1, 3)
    both = one + other
    np.testing.assert_array_equal(both.inputs, np.concatenate([one.inputs, other.inputs]))
    np.testing.assert_array_equal(both.input_low, both.inputs.min(0))
    np.testing.assert_array_equal(both.input_high, both.inputs.max(0))
    assert both.count == 8
    np.testing.assert_allclose(both.output_energy, (5 * one.output_energy + 3 * other.output_energy) / 8)


def test_runs_add_up_layer_by_layer_and_sharing_stays() -> None:
    one, other = layer(0), layer(1)
    parts = [
        Calibration(layers={"q": one, "k": one}, streams={"norm": np.array([1.0], np.float32)}),
        Calibration(layers={"q": other, "k": other, "late": layer(2)}, streams={"norm": np.array([3.0], np.float32)}),
    ]
    whole = Calibration.over(parts)
    assert set(whole.layers) == {"q", "k", "late"}
    assert whole.layers["q"].inputs is whole.layers["k"].inputs
    np.testing.assert_array_equal(whole.streams["norm"], [1, 3])


def test_arrays_go_into_a_file_and_come_back_to_the_bit() -> None:
    one = layer(0)
    before = Calibration(layers={"q": one, "k": one}, streams={"norm": np.array([1.0], np.float32)})
    file = io.BytesIO()
    np.savez(file, **before.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        after = Calibration.from_arrays({name: arrays[name] for name in arrays.files})
    assert_equal(after, before)
    assert after.layers["q"].inputs is after.layers["k"].inputs


def test_factors_of_channels_apply_to_patches_too() -> None:
    random = np.random.default_rng(3)
    patches = random.standard_normal((6, 2 * 9), np.float32)
    channels = patches.reshape(6, 2, 9)
    seen = LayerStatistics(
        inputs=patches, input_low=channels.min((0, 2)), input_high=channels.max((0, 2)),
        output_low=np.array([-1.0], np.float32), output_high=np.array([2.0], np.float32), output_energy=1.0, count=6,
    )  # fmt: skip
    scaled = seen.scaled(np.array([2.0, 0.5], np.float32), np.array([4.0], np.float32))
    np.testing.assert_array_equal(scaled.inputs.reshape(6, 2, 9)[:, 0], 2 * channels[:, 0])
    np.testing.assert_array_equal(scaled.input_high, scaled.inputs.reshape(6, 2, 9).max((0, 2)))
    assert (scaled.output_low[0], scaled.output_high[0]) == (-4, 8)


def test_room_is_what_one_run_shows_beyond_all_others() -> None:
    def run(size: float) -> Calibration:
        x = np.full((2, 4), size, np.float32)
        layers = {"conv": shown(x, -2 * x), "once": shown(x, x)} if size == 3 else {"conv": shown(x, -x)}
        return Calibration(layers=layers)

    seen = with_room([run(2), run(3), run(2)]).layers
    assert seen["conv"].input_room == 1.5
    assert seen["conv"].output_room == MOST_ROOM, "6 against 2 is more than can be held"
    assert seen["once"].input_room == 1.0, "one run has nothing to be held against"
    alike = with_room([run(2), run(2)]).layers["conv"]
    assert (alike.input_room, alike.output_room) == (LEAST_ROOM, LEAST_ROOM)
    assert with_room([run(2), run(3)]).layers["conv"].scaled(None, None).input_room == 1.5
    np.testing.assert_array_equal(seen["conv"].input_high, 3)
