"""A wide VAE's decoder for OpenVINO: a graph for each segment of bands of rows, channels last.

The master is cut before its layers get their formats, so that every segment is lowered as a component is, with those
that its layers have in the whole.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.bands.program import BandProgram
from ....engine.bands.read import BANDS_FILE, from_json, to_json
from ....engine.errors import StorageError
from ...bands.channels_last import channels_last
from ...bands.write import cut_graph
from .attention import attention_products

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

BAND_NUMBERS, SCORES = 1 << 19, 1 << 22
"""A band's widest value takes 2 MiB, which a core keeps beside it; a thread's scores 8 MiB in bfloat16. Larger ones
took as long, and more memory."""


def write_bands(master: "ir.Model", weights: "WeightSource", quantization: "Quantization", out: Path) -> BandProgram:
    """Write the segments of a master whose layers are in floats into `out`, with `bands.json`.

    Raises `ValueError` for a graph that cannot be cut and `StorageError` when writing fails.
    """
    import onnx_ir as ir

    from .target import rewrite

    program, cuts = cut_graph(master.graph, band_numbers=BAND_NUMBERS, scores=SCORES)
    program = replace(program, channels_last=True)
    from_json(to_json(program))  # what cannot be read should not be written
    try:
        for cut in cuts:
            rewrite(cut.model, weights, quantization)
            for read in cut.segment.reads:
                if program.values[read.value].tokens:
                    attention_products(cut.model.graph, program.values[read.value].channels)
            channels_last(cut.model.graph)
            ir.save(cut.model, out / cut.segment.file)
        (out / BANDS_FILE).write_text(to_json(program), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write into {out}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    return program
