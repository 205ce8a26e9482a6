"""Convolutions of a VAE in int8 whose answers stay floats, as products of matrices: which they are, and how.

With 8 bits on both sides of every convolution but the first and the last, the miniature's decoder is 0.87 % from
float32; with answers in bytes for the narrow ones alone, behind which the next norm follows at once, 0.58 %; with bytes
on both sides of the inner ones, and floats for the outer ones, which take 2.5 times as long, 0.65 %.

Those behind doublings that stay in floats altogether are four convolutions of the small picture (`wide_doublings`).
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ....engine.architecture import VaeArchitecture
from ....engine.specs import Role
from ...graph.doubled_conv import Turns, doubled_convs
from ...graph.doubling import doubled_input
from ...graph.layers import Layer, add_initializer, layers_in, replace_layer
from ...graph.patch_conv import Product, cornered, patch_conv, tapped
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import FLOAT32, W8A8_STATIC, Kind
from ...quantize.quantization import Quantization, StaticRange
from ...quantize.recipes import Recipe, Rule

LEAST = 128
"""Channels, on both sides, from which patches are long enough to be copied."""
ALWAYS = 256
"""Channels from which such a product takes no longer than `QLinearConv`: 7.8 ns for each number of its output against
7.5 at 256, 10 against 13.6 at 512; at 128 channels 6.3 against 4.4. Measured before patches were gathered in one copy,
with which it takes 12 to 26 % less."""


_OUTER = r"decoder\.up_blocks\..*\.conv\d?"
"""Of a decoder, all but the first and the last convolution, and shortcuts; the middle is in the recipe's own rules."""


def with_outer(recipe: Recipe, configuration: object) -> Recipe:
    """A recipe whose rules round what a decoder's inner convolutions take, for the outer ones too where all are wide.

    They are half of its operations. Behind all other rules, so that what is kept in floats stays there.
    """
    rows = recipe.rules.get(Role.VAE_DECODER, ())
    if not isinstance(configuration, VaeArchitecture) or min(configuration.block_out_channels) < LEAST:
        return recipe
    inner = next((rule.format for rule in rows if rule.kind is Kind.CONV and rule.format.static), None)
    if inner is None:
        return recipe
    outer = Rule(kind=Kind.CONV, pattern=_OUTER, format=inner)
    return replace(recipe, rules={**recipe.rules, Role.VAE_DECODER: (*rows, outer)})


def stays_float(layer: Layer, graph: ir.Graph, quantization: Quantization) -> bool:
    """Whether the answer of a convolution in static ranges is to be in floats."""
    shape, attributes = layer.weight.shape, layer.main.attributes
    assert shape is not None
    sides = (list(attributes.get_ints("strides", [1, 1])), list(attributes.get_ints("pads", [0] * 4)))
    if quantization.role is not Role.VAE_DECODER or sides != ([1, 1], [1] * 4) or tuple(shape[2:]) != (3, 3):
        return False
    width = _width(layer)
    # What leaves the residual stream through a shortcut, and what doubles it, is rounded but once.
    block, _, part = layer.name.rpartition(".")
    behind_shortcut = part == "conv2" and f"{block}.conv_shortcut.weight" in graph.initializers
    return width >= LEAST and (width >= ALWAYS or behind_shortcut or doubled_input(layer) is not None)


def wide_doublings(graph: ir.Graph, quantization: Quantization) -> None:
    """Convolutions behind doublings that stay in floats, as `DoubledConv`s: those of a decoder from `LEAST` channels.

    Of their weights that takes 1.8 times as many bytes, which are the least of what a decoder needs.
    """
    if quantization.role is Role.VAE_DECODER:
        floats = layers_in(graph, Kind.CONV, FLOAT32, quantization)
        doubled_convs(graph, [layer for layer in floats if _width(layer) >= LEAST], Turns.CONCAT)


def conv_patches(graph: ir.Graph, layer: Layer, static: StaticRange, quantization: Quantization) -> None:
    """Put one in a convolution's place, and in that of the doubling before it if there is one."""
    assert W8A8_STATIC.weight is not None
    small = doubled_input(layer)
    scales = ir.Tensor(np.ascontiguousarray(static.input_scale, np.float32), name=f"{layer.name}.input_scale")
    points = np.full(len(static.input_scale), static.input_zero, np.uint8)
    given = [add_initializer(graph, t) for t in (scales, ir.Tensor(points, name=f"{layer.name}.input_zero_points"))]
    quantize = ir.node(
        "QuantizeLinear",
        [layer.input if small is None else small, *given],
        attributes={"axis": 1},
        name=f"{layer.name}/quantize",
    )
    if small is None:
        weights = [StoredWeight.of(layer, W8A8_STATIC.weight, quantization, static.input_scale)]
    else:
        weights = [
            StoredWeight(name=source.name or "", source=source, how=W8A8_STATIC.weight, input_scale=static.input_scale)
            for source in (_corners(layer, odd=False), _corners(layer, odd=True))
        ]
    zero = ir.Tensor(np.array(static.input_zero, np.uint8), name=f"{layer.name}.input_zero_point")
    bias = None if layer.bias is None else add_initializer(graph, _bias(layer, len(weights)))
    node = patch_conv(
        quantize.outputs[0],
        add_initializer(graph, ir.Tensor(np.array(1, np.float32), name="static.one")),
        add_initializer(graph, zero),
        [
            Product(
                matrix=add_initializer(graph, _matrix(weight)),
                scale=add_initializer(graph, weight.scale()),
                bias=bias,
            )
            for weight in weights
        ],
        channels=int(layer.weight_data().shape[0]),
        name=layer.name,
    )
    replace_layer(graph, layer, [quantize, node])


def _width(layer: Layer) -> int:
    """Its channels, on the side where it has fewer."""
    assert layer.weight.shape is not None
    return min(int(side) for side in layer.weight.shape[:2])


def _corners(layer: Layer, *, odd: bool) -> ir.LazyTensor:
    out, given, *_ = (int(side) for side in layer.weight_data().shape)
    name = f"{layer.name}.{'odd' if odd else 'even'}"
    return ir.LazyTensor(
        lambda: ir.Tensor(cornered(layer.weight_data().numpy().astype(np.float32), odd=odd), name=name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape((2 * out, given, 2, 2)),
        name=name,
    )


def _matrix(weight: StoredWeight) -> ir.LazyTensor:
    taps = weight.shape[2] * weight.shape[3]
    return weight.tensor(
        "int8", ir.DataType.INT8, (weight.width, weight.shape[0]), lambda: tapped(weight.rounded().data, taps)
    )


def _bias(layer: Layer, times: int) -> ir.LazyTensor:
    name = f"{layer.name}.bias_{times}"

    def compute() -> ir.Tensor:
        bias = layer.bias_data()
        assert bias is not None
        return ir.Tensor(np.tile(bias.numpy().astype(np.float32), times), name=name)

    assert layer.bias is not None
    assert layer.bias.shape is not None
    shape = ir.Shape((times * int(layer.bias.shape[0]),))
    return ir.LazyTensor(compute, dtype=ir.DataType.FLOAT, shape=shape, name=name)
