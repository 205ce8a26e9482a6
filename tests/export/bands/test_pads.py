"""Zeros around a value become its convolution's padding, and nothing else does."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from pocketxl.export.bands.pads import pads_into_convolutions


def graph(
    counts: Sequence[int], *, own: Sequence[int] = (0, 0, 0, 0), mode: str = "constant", twice: bool = False
) -> Any:
    x = ir.Value(name="x", shape=ir.Shape([1, 2, "h", "w"]), type=ir.TensorType(ir.DataType.FLOAT))
    numbers = ir.Value(name="counts", const_value=ir.Tensor(np.array(counts, np.int64), name="counts"))
    weight = ir.Value(name="w", const_value=ir.Tensor(np.zeros((2, 2, 3, 3), np.float32), name="w"))
    pad = ir.node("Pad", [x, numbers], attributes={"mode": mode})
    conv = ir.node("Conv", [pad.outputs[0], weight], attributes={"pads": list(own), "strides": [2, 2]})
    others = [ir.node("Relu", [pad.outputs[0]])] if twice else []
    return ir.Graph([x], [conv.outputs[0]], nodes=[pad, conv, *others], initializers=[numbers, weight])


def test_zeros_below_and_behind_become_the_convolution_s() -> None:
    made = graph([0, 0, 0, 0, 0, 0, 1, 1])
    pads_into_convolutions(made)
    (conv,) = made
    assert list(conv.attributes.get_ints("pads")) == [0, 0, 1, 1]
    assert conv.inputs[0] is made.inputs[0]


@pytest.mark.parametrize(
    "made",
    [
        graph([0, 1, 0, 0, 0, 0, 1, 1]),
        graph([0, 0, 0, 0, 0, 0, -1, 1]),
        graph([0, 0, 0, 0, 0, 0, 1, 1], own=(1, 1, 1, 1)),
        graph([0, 0, 0, 0, 0, 0, 1, 1], mode="reflect"),
        graph([0, 0, 0, 0, 0, 0, 1, 1], twice=True),
    ],
    ids=["channels", "cropped", "padded twice", "reflected", "used elsewhere"],
)
def test_what_is_no_padding_of_one_convolution_stays(made: Any) -> None:
    before = [node.op_type for node in made]
    pads_into_convolutions(made)
    assert [node.op_type for node in made] == before
