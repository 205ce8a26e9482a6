"""A wide VAE's decoder for OpenVINO: a graph for each segment of bands of rows, channels last.

The master is cut before its layers get their formats, so that every segment is lowered as a component is, with those
that its layers have in the whole.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.bands.program import BFLOAT16, ITEM_BYTES, BandProgram
from ....engine.bands.read import BANDS_FILE, from_json, to_json
from ....engine.errors import StorageError
from ...bands.channels_last import channels_last
from ...bands.write import cut_graph
from ...graph.layers import find_layers
from ...quantize.formats import FLOAT32
from .attention import attention_products

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

BAND_BYTES, SCORES = 2 << 20, 1 << 22
"""Of a band's widest value, which a core keeps beside it; and numbers of a thread's scores, 8 MiB in bfloat16. Twice
as much took a tenth longer and more memory, half as much 5 to 10 % longer, as each band brings its neighbours' rows (by
hand, in bfloat16)."""
_PRODUCTS = {"Conv", "Gemm", "MatMul"}


def write_bands(master: "ir.Model", weights: "WeightSource", quantization: "Quantization", out: Path) -> BandProgram:
    """Write the segments of a master whose layers are in floats into `out`, with `bands.json`.

    Raises `ValueError` for a graph that cannot be cut and `StorageError` when writing fails.
    """
    import onnx_ir as ir

    from .target import rewrite

    floats = BFLOAT16 if _in_8_bits(master.graph, quantization) else "float32"
    numbers = BAND_BYTES // ITEM_BYTES[floats]
    program, cuts = cut_graph(master.graph, band_numbers=numbers, scores=SCORES, floats=floats)
    segments = []
    try:
        for cut in cuts:
            rewrite(cut.model, weights, quantization)
            for read in cut.segment.reads:
                if program.values[read.value].tokens:
                    attention_products(cut.model.graph, program.values[read.value].channels)
            may_round = cut.segment.value != program.output  # the picture keeps its digits
            segments.append(replace(cut.segment, floats=may_round and _multiplies_floats(cut.model.graph)))
            channels_last(cut.model.graph)
            ir.save(cut.model, out / cut.segment.file)
        program = replace(program, channels_last=True, segments=tuple(segments))
        from_json(to_json(program))  # what cannot be read should not be written
        (out / BANDS_FILE).write_text(to_json(program), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write into {out}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    return program


def _in_8_bits(graph: "ir.Graph", quantization: "Quantization") -> bool:
    """Whether some layer has another format than floats, so that bfloat16 between segments is no loss."""
    return any(quantization.format(layer.kind, layer.name) != FLOAT32 for layer in find_layers(graph))


def _multiplies_floats(graph: "ir.Graph") -> bool:
    return any(node.op_type in _PRODUCTS and not _quantized(node) for node in graph)


def _quantized(node: "ir.Node") -> bool:
    """Whether a product takes 8 bits."""
    producer = None if node.inputs[0] is None else node.inputs[0].producer()
    return producer is not None and producer.op_type == "DequantizeLinear"
