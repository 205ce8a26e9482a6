"""Linear layers whose weights have a scale for some inputs: ONNX Runtime's `MatMulNBits`.

Its providers for CUDA and DirectML have it too, in half precision. With inputs in floats a processor's kernels make
floats of some columns at a time, never of a whole weight. With 8-bit inputs (`accuracy_level` 4) every token's inputs
are rounded to int8 by their largest magnitude within each group, so an outlier costs its own group in its own token.
Their sums are exact on every processor: where 16 bits would overflow (AVX2 without VNNI), even and odd bytes are added
apart (MLAS, `sqnbitgemm_kernel_avx2_int8_blklen64.h`).
"""

import numpy as np
import onnx_ir as ir

from ...graph.layers import MICROSOFT, Layer, add_initializer, find_layers, replace_layer
from ...graph.stored_weight import Bytes, StoredWeight
from ...quantize.formats import Format, Kind
from ...quantize.quantization import Quantization

FLOAT_INPUTS, INT8_INPUTS = 1, 4
"""`accuracy_level`: what inputs are multiplied in."""
MIDDLE = 128
"""What uint8 numbers without zero points count from."""


def linear_groups(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every linear layer whose weight has groups: `w8a8` with groups, `w4`, `w4a8` and `W4_HALVES`."""
    for layer in find_layers(graph):
        if layer.kind is Kind.LINEAR:
            format = quantization.format(Kind.LINEAR, layer.name)
            if format.weight is not None and format.weight.group is not None:
                replace_layer(graph, layer, [_product(graph, layer, format, quantization)])


def _product(graph: ir.Graph, layer: Layer, format: Format, quantization: Quantization) -> ir.Node:
    assert format.weight is not None
    weight = StoredWeight.of(layer, format.weight, quantization)
    inputs = [layer.input, add_initializer(graph, _blocks(weight)), add_initializer(graph, _scale(weight))]
    zeros = add_initializer(graph, _zero_points(weight)) if format.weight.zero else None
    out, width = weight.shape
    return ir.node(
        "MatMulNBits",
        [*inputs, zeros, None, layer.bias],
        attributes={
            "K": width,
            "N": out,
            "bits": format.weight.bits,
            "block_size": format.weight.group,
            "accuracy_level": FLOAT_INPUTS if format.activation is None else INT8_INPUTS,
        },
        domain=MICROSOFT,
        name=layer.name,
    )


def _blocks(weight: StoredWeight) -> ir.LazyTensor:
    """`[out, groups, bytes of a group]`, the lower half of a byte first; the last group is filled up."""
    (out, width), size = weight.shape, weight.how.group or 0
    shape = (out, weight.groups, size * weight.how.bits // 8)

    def compute() -> Bytes:
        data = weight.rounded().data
        numbers = np.zeros((out, weight.groups * size), np.uint8)
        numbers[:, :width] = data if data.dtype == np.uint8 else data.view(np.uint8) ^ MIDDLE
        return _packed(numbers, weight.how.bits).reshape(shape)

    return weight.tensor("blocks", ir.DataType.UINT8, shape, compute)


def _scale(weight: StoredWeight) -> ir.LazyTensor:
    """`[out, groups]`, in the floats that the layer computes in."""
    if weight.how.scale_bits == 32:
        return weight.scale()
    shape = (weight.shape[0], weight.groups)
    return weight.tensor("scale", ir.DataType.FLOAT16, shape, lambda: weight.rounded().scale.astype(np.float16))


def _zero_points(weight: StoredWeight) -> ir.LazyTensor:
    """`[out, bytes]`, packed like the numbers, each row by itself."""
    shape = (weight.shape[0], -(-weight.groups * weight.how.bits // 8))

    def compute() -> Bytes:
        zero = weight.rounded().zero
        assert zero is not None
        return _packed(np.pad(zero, ((0, 0), (0, zero.shape[1] % 2))), weight.how.bits)[:, : shape[1]]

    return weight.tensor("zero_points", ir.DataType.UINT8, shape, compute)


def _packed(numbers: Bytes, bits: int) -> Bytes:
    """Pairs of 4-bit numbers `[rows, even]` in a byte each."""
    if bits == 8:
        return numbers
    packed: Bytes = numbers[:, 0::2] | np.left_shift(numbers[:, 1::2], np.uint8(4))
    return packed
