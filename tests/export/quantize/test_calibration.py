"""Statistics add up, follow factors, and survive a file."""

import io

import numpy as np

from pocketxl.export.quantize.calibration import Calibration, LayerStatistics

from ...fixtures.calibration import assert_equal, shown


def layer(seed: int, rows: int = 5) -> LayerStatistics:
    random = np.random.default_rng(seed)
    return shown(random.standard_normal((rows, 4), np.float32), random.standard_normal((rows, 3), np.float32))


def test_calls_of_a_run_are_one_of_all_their_rows() -> None:
    one, other = layer(0, 5), layer(1, 3)
    both = one + other
    np.testing.assert_array_equal(both.inputs, np.concatenate([one.inputs, other.inputs]))
    np.testing.assert_array_equal(both.rows, [8])
    np.testing.assert_array_equal(both.input_lows, both.inputs.min(0, keepdims=True))
    np.testing.assert_array_equal(both.input_range[1], both.inputs.max(0))
    np.testing.assert_array_equal(both.input_size, np.abs(both.inputs).max(0))
    assert both.count == 8
    np.testing.assert_allclose(both.output_energy, (5 * one.output_energy + 3 * other.output_energy) / 8)


def test_runs_beside_each_other_can_be_told_apart() -> None:
    one, other = layer(0, 5), layer(1, 3)
    both = one.beside(other)
    np.testing.assert_array_equal(both.rows, [5, 3])
    np.testing.assert_array_equal(both.inputs[5:], other.inputs)
    np.testing.assert_array_equal(both.output_highs, np.concatenate([one.output_highs, other.output_highs]))
    for name in ("input_range", "output_range"):
        np.testing.assert_array_equal(getattr(both, name), getattr(one + other, name))
    runs = Calibration.of_runs(Calibration(layers={"conv": seen}) for seen in (one, other, one))
    np.testing.assert_array_equal(runs.layers["conv"].rows, [5, 3, 5])


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
    edges = channels.min((0, 2)), channels.max((0, 2))
    given = np.array([-1.0], np.float32), np.array([2.0], np.float32)
    seen = LayerStatistics.of_run(patches, edges, given, output_energy=1.0, count=6)
    scaled = seen.scaled(np.array([2.0, 0.5], np.float32), np.array([4.0], np.float32))
    np.testing.assert_array_equal(scaled.inputs.reshape(6, 2, 9)[:, 0], 2 * channels[:, 0])
    np.testing.assert_array_equal(scaled.input_range[1], scaled.inputs.reshape(6, 2, 9).max((0, 2)))
    assert [float(edge[0]) for edge in scaled.output_range] == [-4, 8]
