"""int8 weights and uint8 activations: their arithmetic, and that nothing is read before it is needed."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.export.quantize.int8 import Int8Weight, Uint8Range

from ..targets.cpu.lowering import noise


def weight_of(values: np.ndarray) -> Int8Weight:
    return Int8Weight(source=ir.Tensor(values.astype(np.float32), name="layer.weight"))


@pytest.mark.parametrize("shape", [(6, 10), (5, 4, 3, 3), (1, 8)])
def test_every_channel_uses_its_whole_range_and_is_off_by_half_a_step_at_most(shape: tuple[int, ...]) -> None:
    values = noise(*shape) * np.geomspace(1e-3, 1e2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    weight = weight_of(values)
    columns = values.astype(np.float32).reshape(shape[0], -1)
    np.testing.assert_array_equal(weight.scale, np.abs(columns).max(axis=1) / np.float32(127))
    assert weight.data.dtype == np.int8
    np.testing.assert_array_equal(np.abs(weight.data.reshape(shape[0], -1)).max(axis=1), 127)
    steps = np.abs(weight.dequantized() - values).reshape(shape[0], -1) / weight.scale[:, None]
    assert steps.max() <= 0.5 + 1e-4


def test_channel_of_zeros_stays_zero() -> None:
    values = noise(3, 4)
    values[1] = 0
    weight = weight_of(values)
    assert (weight.dequantized()[1] == 0).all()
    assert np.isfinite(weight.scale).all()


def test_tensors_are_lazy_and_transposed_on_demand() -> None:
    reads = []

    def read() -> ir.Tensor:
        reads.append(1)
        return ir.Tensor(noise(6, 10), name="w")

    weight = Int8Weight(source=ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape([6, 10])))
    plain, turned = weight.data_tensor("a"), weight.data_tensor("b", transposed=True)
    scale = weight.scale_tensor("c")
    assert not reads
    assert (plain.shape, turned.shape, scale.shape) == ((6, 10), (10, 6), (6,))
    np.testing.assert_array_equal(plain.numpy(), turned.numpy().T)
    assert scale.numpy().shape == (6,)
    assert len(reads) == 1, "data and scale of one layer are computed from one reading"


@given(low=st.floats(-100, 100, width=32), high=st.floats(-100, 100, width=32))
def test_range_holds_its_ends_and_zero_exactly(low: float, high: float) -> None:
    low, high = sorted((low, high))
    taken = Uint8Range.over(low, high)
    assert 0 <= taken.zero_point <= 255
    ends = np.array([low, high, 0.0], np.float32)
    kept = taken.round_trip(ends)
    assert kept[2] == 0
    # The zero point is rounded too, so an end may lose another half step.
    assert np.abs(kept - ends).max() <= taken.scale * 1.01


def test_range_clips_what_lies_outside() -> None:
    taken = Uint8Range.over(-0.28, 5.0)
    np.testing.assert_allclose(taken.round_trip(np.array([-9.0, 9.0], np.float32)), [-0.28, 5.0], atol=taken.scale)
