"""Products of e4m3 with e4m3, from Ada on: see `eight_bits`.

An input's step is a power of two and so is a weight's: rounding to e4m3 does not see them, but at the ends of the
range. Both are far off (`quantize/signed_ranges.py`), and what lies beyond 448 steps becomes 448 steps, in ONNX's
`QuantizeLinear` as in CUDA's conversion, which has no other way.
"""

from typing import Final

import onnx_ir as ir

from ...quantize.quantization import Quantization
from .eight_bits import SummedNumbers, rewrite_products

E4M3: Final = SummedNumbers(
    name="e4m3", kind="float", dtype=ir.DataType.FLOAT8E4M3FN, largest_product=448 * 448, largest_sum=8192.0
)


def fp8(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every layer whose input is e4m3; `ValueError` for one without its scales."""
    rewrite_products(graph, quantization, E4M3)
