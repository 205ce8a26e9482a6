"""A lazy weight in groups: nothing is read before it is needed, and then once."""

import numpy as np
import onnx_ir as ir

from pocketxl.export.quantize.formats import W4
from pocketxl.export.quantize.group_weight import GroupWeight
from pocketxl.export.quantize.int8 import Int8Weight
from pocketxl.export.quantize.rounding import round_weight

from .inputs import correlated, normal


def test_a_convolution_s_weight_is_read_once_and_has_groups_along_everything_behind_its_outputs() -> None:
    values, reads = normal(6, 20, 3, 3), []

    def read() -> ir.Tensor:
        reads.append(1)
        return ir.Tensor(values, name="w")

    assert W4.weight is not None
    source = ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape(values.shape))
    weight = GroupWeight(source=source, how=W4.weight)
    assert weight.shape == (6, 180)
    assert not reads
    expected = round_weight(values.reshape(6, 180), W4.weight)
    assert weight.zero is not None
    assert expected.zero is not None
    np.testing.assert_array_equal(weight.data, expected.data)
    np.testing.assert_array_equal(weight.scale, expected.scale)
    np.testing.assert_array_equal(weight.zero, expected.zero)
    assert len(reads) == 1


def test_both_lazy_weights_round_for_their_inputs_where_they_have_some() -> None:
    values, inputs = normal(16, 4, 3, 3), correlated(64, 36, seed=1)
    source = ir.Tensor(values, name="w")
    assert W4.weight is not None
    for plain, told in (
        (Int8Weight(source=source), Int8Weight(source=source, inputs=inputs)),
        (GroupWeight(source=source, how=W4.weight), GroupWeight(source=source, how=W4.weight, inputs=inputs)),
    ):
        assert plain.data.shape == told.data.shape
        assert (plain.data != told.data).any()
