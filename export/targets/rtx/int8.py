"""Products of int8 with int8, which TensorRT for RTX's documents do not speak of: see `eight_bits`.

Its limit is chosen so that real sums are around 1, in the middle of half's range; then a channel's factor behind the
product is about as large as its output. Inputs below 0.008 get fewer steps than 127. Beyond steps of 180 and widths of
11,520 the least scale makes sums up to a few times the limit.
"""

from typing import Final

import onnx_ir as ir

from ...quantize.quantization import Quantization
from .eight_bits import SummedNumbers, rewrite_products

INT8: Final = SummedNumbers(
    name="int8", kind="int", dtype=ir.DataType.INT8, largest_product=128 * 127, largest_sum=2048.0
)


def int8(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every layer whose input is int8; `ValueError` for one without its scales."""
    rewrite_products(graph, quantization, INT8)
