"""Convolutions in int8: `QuantizeLinear` → `QLinearConv` → `DequantizeLinear`.

Activations are uint8 in calibrated ranges, with a scale for each channel on either side; weights int8 per output
channel. `QLinearConv` itself knows one scale for all channels: it gets 1, since the input's scales are in its weights
by then and the output's in the scales of these. Measured, that takes as long as one scale for the tensor.

ONNX Runtime has two ways for such a convolution, with the same bits. Where it knows every zero point when it loads, it
multiplies pixels in place, by VNNI. Otherwise it lays all patches out as rows of a matrix, whose product uses AMX where
a processor has it: 1.65 to 1.9 times as fast there from `WIDE` channels on, and 0.7 to 0.85 times without. So the zero
point of wide inputs stands behind a `Cast`: ONNX Runtime folds that into a constant, unless the runner, on a processor
with AMX, tells it not to fold (`ort_session.py`).

ONNX Runtime's `ConvInteger`, which dynamic quantization would need, is fourteen times slower: 8.7 s of a forward of
SDXL's base U-Net at 512 × 512 on two cores with AVX512-VNNI, against 0.6 s of `QLinearConv`.
"""

import math

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, layers_in, only_user, replace_layer
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import W8A8_STATIC, Kind
from ...quantize.quantization import Quantization, StaticRange
from ...quantize.rounded import Floats
from .conv_patches import conv_patches, stays_float

# int32 bias of a QLinearConv counts in steps of the weight's scale; beyond this the sum could overflow.
LARGEST_BIAS_STEPS = 2**30

# Channels, on both sides, from which products of matrices in AMX's tiles win. Time in place over time as rows, one
# core: 1.9 (1280 at 32 x 32), 1.65 (640 at 64 x 64), 0.8 (256), 0.45 (128 at 256 x 256); SDXL's 320 have 1.2, but
# their patches, at 1024 x 1024, twice the memory of all others'.
WIDE = 640
FLOAT_BYTES = 4


def conv_int8(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every convolution of the format `w8a8_static`; `ValueError` for one without ranges."""
    for layer in layers_in(graph, Kind.CONV, W8A8_STATIC, quantization):
        if layer.name not in quantization.ranges:
            raise ValueError(f"{quantization.role}: {layer.name} has no calibrated range: observe it before lowering")
        lower = conv_patches if stays_float(layer, graph, quantization) else _rewrite
        lower(graph, layer, quantization.ranges[layer.name], quantization)


def patch_bytes(graph: ir.Graph, quantization: Quantization) -> dict[str, float]:
    """Output of each wide convolution → bytes of all its patches, for each byte of it in floats. Before `conv_int8`.

    Every output pixel has a patch: the inputs of one of its sums, a byte each.
    """
    found = {}
    for layer in layers_in(graph, Kind.CONV, W8A8_STATIC, quantization):
        assert layer.weight.shape is not None
        out, *patch = (int(side) for side in layer.weight.shape)
        if min(out, patch[0]) >= WIDE:
            found[str(layer.output.name)] = math.prod(patch) / (FLOAT_BYTES * out)
    return found


def _rewrite(graph: ir.Graph, layer: Layer, static: StaticRange, quantization: Quantization) -> None:
    assert W8A8_STATIC.weight is not None
    weight = StoredWeight.of(layer, W8A8_STATIC.weight, quantization, static.input_scale)
    one = add_initializer(graph, ir.Tensor(np.array(1, np.float32), name="static.one"))
    taken, given = f"{layer.name}.input", f"{layer.name}.output"
    quantize = ir.node(
        "QuantizeLinear",
        [layer.input, *_range(graph, taken, static.input_scale, static.input_zero)],
        attributes={"axis": 1},
        name=f"{layer.name}/quantize",
    )
    zero, before = _input_zero(graph, layer, static.input_zero, weight.shape)
    inputs: list[ir.Value | None] = [
        quantize.outputs[0],
        one,
        zero,
        add_initializer(graph, weight.int8()),
        add_initializer(graph, weight.scale(divided_by=static.output_scale)),
        add_initializer(graph, weight.no_zero_points()),
        one,
        _zero(graph, given, static.output_zero),
    ]
    if layer.bias is not None:
        inputs.append(add_initializer(graph, _bias(layer, weight)))
    convolve = ir.node("QLinearConv", inputs, attributes=dict(layer.main.attributes), name=layer.name)
    dequantize = ir.node(
        "DequantizeLinear",
        [convolve.outputs[0], *_range(graph, given, static.output_scale, static.output_zero)],
        attributes={"axis": 1},
        name=f"{layer.name}/dequantize",
    )
    replace_layer(graph, layer, [*before, quantize, convolve, dequantize])
    _quantize_before_resize(graph, quantize)


def _input_zero(graph: ir.Graph, layer: Layer, zero: int, shape: tuple[int, ...]) -> tuple[ir.Value, list[ir.Node]]:
    """The input's zero point, and the node that makes it where the convolution is wide."""
    if min(shape[:2]) < WIDE:
        return _zero(graph, f"{layer.name}.input", zero), []
    stored = ir.Tensor(np.array(zero, np.int32), name=f"static.zero_{zero}")
    cast = ir.node(
        "Cast",
        [add_initializer(graph, stored)],
        attributes={"to": ir.DataType.UINT8},
        name=f"{layer.name}/input_zero_point",
    )
    return cast.outputs[0], [cast]


def _bias(layer: Layer, weight: StoredWeight) -> ir.LazyTensor:
    name = f"{layer.name}.bias_int32"

    def compute() -> ir.Tensor:
        bias = layer.bias_data()
        assert bias is not None
        # Before the output's scales are divided out of it, a step of the sum is one of the weight's scale.
        steps = bias.numpy().astype(np.float64) / weight.rounded().scale
        return ir.Tensor(np.rint(steps.clip(-LARGEST_BIAS_STEPS, LARGEST_BIAS_STEPS)).astype(np.int32), name=name)

    return ir.LazyTensor(compute, dtype=ir.DataType.INT32, shape=ir.Shape(weight.shape[:1]), name=name)


def _range(graph: ir.Graph, name: str, scale: Floats, zero: int) -> tuple[ir.Value, ir.Value]:
    """Scales of all channels, and the zero point that they share once for each."""
    scales = ir.Tensor(np.ascontiguousarray(scale, np.float32), name=f"{name}_scale")
    zeros = ir.Tensor(np.full(len(scale), zero, np.uint8), name=f"{name}_zero_points")
    return add_initializer(graph, scales), add_initializer(graph, zeros)


def _zero(graph: ir.Graph, name: str, zero: int) -> ir.Value:
    return add_initializer(graph, ir.Tensor(np.array(zero, np.uint8), name=f"{name}_zero_point"))


def _quantize_before_resize(graph: ir.Graph, quantize: ir.Node) -> None:
    """Quantize before a nearest-neighbour resize instead of after it: exact, a quarter of the numbers."""
    resized = quantize.inputs[0]
    resize = resized.producer() if resized is not None else None
    if resize is None or resize.op_type != "Resize" or only_user(resized) is None:
        return
    if resize.attributes.get_string("mode", "nearest") != "nearest":
        return
    source = resize.inputs[0]
    early = ir.node(
        "QuantizeLinear", [source, *quantize.inputs[1:]], attributes=dict(quantize.attributes), name=quantize.name
    )
    graph.insert_before(resize, early)
    resize.replace_input_with(0, early.outputs[0])
    resize.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    ir.convenience.replace_all_uses_with(quantize.outputs[0], resize.outputs[0])
    graph.remove(quantize, safe=True)
