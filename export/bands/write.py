"""A component's folder of segments: `bands.json`, a graph for each segment, and all their weights once in one file."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...engine.bands.program import SCORES, BandProgram, BandValue
from ...engine.bands.read import BANDS_FILE, from_json, to_json
from ...engine.errors import StorageError
from ..graph.stand_ins import is_stand_in
from .cut import CONVOLUTIONS, Cuts, find_cuts, is_conv, reach
from .pads import pads_into_convolutions
from .segment import Cut, cut_segment

BAND_NUMBERS = 1 << 19
"""Of a band, as floats 2 MiB: what a processor keeps beside a core. SDXL's decoder took 7.8 s at 512 × 512 with it, and
8.6 with four times as many."""


def write_bands(path: Path) -> BandProgram:
    """Cut the model at `path`, whose weights lie beside it, into segments there; the model's own file goes.

    Raises `ValueError` for a graph that cannot be cut and `StorageError` when writing fails.
    """
    program, made = cut_graph(ir.load(path).graph)
    from_json(to_json(program))  # what cannot be read should not be written
    try:
        for cut in made:
            ir.save(cut.model, path.with_name(cut.segment.file))
        path.with_name(BANDS_FILE).write_text(to_json(program), encoding="utf-8")
        path.unlink()
    except OSError as error:
        raise StorageError(
            f"cannot write into {path.parent}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    return program


def cut_graph(
    graph: ir.Graph,
    name: str = "segment_{:02}.onnx",
    *,
    band_numbers: int = BAND_NUMBERS,
    scores: int = SCORES,
    floats: str = "float32",
) -> tuple[BandProgram, list[Cut]]:
    """The segments of a graph, in files of these names, and what they consist of; `ValueError` if it cannot be cut.

    `floats`: how numbers in float32 are kept between segments. The graph is not to be used afterwards.
    """
    pads_into_convolutions(graph)
    cuts = find_cuts(graph)
    values = describe(graph, cuts)
    ends = {str(graph.inputs[0].name), str(cuts.end.name)}
    values = {
        key: replace(value, dtype=floats) if value.dtype == "float32" and key not in ends else value
        for key, value in values.items()
    }
    made = [cut_segment(value, cuts, values, name.format(i)) for i, value in enumerate(cuts.kept)]
    program = BandProgram(
        input=str(graph.inputs[0].name),
        output=str(cuts.end.name),
        values=values,
        segments=tuple(cut.segment for cut in made),
        band_numbers=band_numbers,
        scores=scores,
    )
    return program, made


def describe(graph: ir.Graph, cuts: Cuts) -> dict[str, BandValue]:
    """What every kept value, and the graph's input, is like."""
    given = graph.inputs[0]
    assert given.shape is not None
    found: dict[ir.Value, tuple[int, Fraction]] = {given: (int(given.shape[1]), Fraction(1))}
    for node in graph:
        for output in node.outputs:
            found[output] = _channels(node, found)
    latents = min(found[value][1] for value in (given, *cuts.kept))
    return {
        str(value.name): BandValue(
            dtype=_dtype(value),
            channels=found[value][0],
            scale=int(found[value][1] / latents),
            zero=_zero(value),
            tokens=value in cuts.whole,
            norm=norm.norm if (norm := cuts.norm_of(value)) else None,
        )
        for value in (given, *cuts.kept)
    }


def _channels(node: ir.Node, found: Mapping[ir.Value, tuple[int, Fraction]]) -> tuple[int, Fraction]:
    """Channels and rows, for one of the input's, of what a node gives: convolutions and resizes change them."""
    channels, scale = next((found[x] for x in node.inputs if x in found), (0, Fraction(1)))
    if is_stand_in(node):
        return node.attributes.get_int("channels", 0), scale * node.attributes.get_int("grow", 1)
    if is_conv(node):
        weight = node.inputs[CONVOLUTIONS[node.op_type]]
        shape = None if weight is None else weight.shape or _dequantized(weight)
        assert shape is not None
        return int(shape[0]), scale / reach(node).stride
    return channels, 2 * scale if node.op_type == "Resize" else scale


def _dequantized(weight: ir.Value) -> ir.Shape | None:
    """Of a weight that is made floats when its layer runs."""
    producer = weight.producer()
    return producer.inputs[0].shape if producer is not None and producer.inputs[0] is not None else None


def _dtype(value: ir.Value) -> str:
    if _bytes(value):
        return "uint8"
    return "float16" if value.dtype == ir.DataType.FLOAT16 else "float32"


def _bytes(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in ("QLinearConv", "QuantizeLinear")


def _zero(value: ir.Value) -> int:
    """The zero point of bytes, which all channels share."""
    producer = value.producer()
    if producer is None or not _bytes(value):
        return 0
    point = producer.inputs[7 if producer.op_type == "QLinearConv" else 2]
    assert point is not None
    assert point.const_value is not None
    numbers = np.unique(point.const_value.numpy())
    if numbers.size != 1:
        raise ValueError(f"{value.name} has {numbers.size} zero points, its channels must share one")
    return int(numbers[0])
