"""8 bits and back, as the kernels round: by the largest magnitude of what shares a scale over 127; in plain ONNX."""

import numpy as np
import onnx_ir as ir

from ...graph.layers import add_initializer
from ...graph.nodes import InGraph

STEPS = 127
LEAST = 1e-30
"""What a row of zeros is scaled by, as in the kernels; 0 would divide to NaN."""


def rounded(nodes: InGraph, x: ir.Value, axes: tuple[int, ...], dtype: ir.DataType) -> ir.Value:
    """What is left of `x`, as `dtype`; numbers along `axes` share a scale. The arithmetic is float32."""
    wide = cast(nodes, x, ir.DataType.FLOAT)
    along = integers(nodes, *axes)
    largest = nodes.emit("ReduceMax", [nodes.emit("Abs", [wide]), along], keepdims=ir.AttrInt64("keepdims", 1))
    scale = nodes.emit("Mul", [nodes.emit("Max", [largest, number(nodes, LEAST)]), number(nodes, 1 / STEPS)])
    steps = nodes.emit("Round", [nodes.emit("Div", [wide, scale])])
    return cast(nodes, nodes.emit("Mul", [steps, scale]), dtype)


def cast(nodes: InGraph, x: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The same numbers as `dtype`."""
    return nodes.emit("Cast", [x], to=ir.AttrInt64("to", dtype))


def integers(nodes: InGraph, *numbers: int) -> ir.Value:
    """Some numbers, int64."""
    return nodes.number(f"stand_in.int{numbers}", list(numbers))


def number(nodes: InGraph, value: float) -> ir.Value:
    """One number, float32."""
    return add_initializer(nodes.graph, ir.Tensor(np.asarray(value, np.float32), name=f"stand_in.float({value})"))
