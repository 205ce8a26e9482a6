"""What vendors state of GPUs, dense (never with sparsity): the ground of predictions.

Tensor-core peaks are SMs × operations per clock × the highest boost clock. Per SM and clock, consumer Ampere, Ada and
Blackwell do 1024 float16 operations with float16 sums, half as many with float32 sums, and 2048 of int8 (NVIDIA Ampere
GA102 whitepaper, table "Comparison of GeForce Tensor Cores"; Ada whitepaper, appendix A; RTX Blackwell whitepaper,
appendix A). A laptop that is held to less power clocks lower.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Peaks of one GPU: operations and bytes a second. `float16_short` sums in float16; `float8` sums in float32."""

    name: str
    sm: int
    int8: float
    float16: float
    float16_short: float
    float8: float | None
    bandwidth: float
    geforce: bool = True


def _geforce(name: str, sm: int, *, sms: int, clock: float, bandwidth: float) -> Gpu:
    """`clock` in GHz, `bandwidth` in GB/s."""
    short = sms * 1024 * clock * 1e9
    return Gpu(
        name=name, sm=sm, int8=2 * short, float16=short / 2, float16_short=short, float8=short if sm >= 89 else None,
        bandwidth=bandwidth * 1e9,
    )  # fmt: skip


_ALL: Final = (
    # GA106: 30 SMs, boost 1283-1703 MHz (NVIDIA's laptop table), 192 bits of 14 Gb/s GDDR6.
    _geforce("rtx-3060-laptop", 86, sms=30, clock=1.703, bandwidth=336),
    # GA102 whitepaper, GeForce RTX 3090: 82 SMs, 1695 MHz; 71 / 142 TFLOPS, int8 284 TOPS, 936 GB/s.
    _geforce("rtx-3090", 86, sms=82, clock=1.695, bandwidth=936),
    # AD106: 36 SMs, boost up to 2175 MHz (NVIDIA's laptop table, "321 AI TOPS" with sparsity), 128 bits of 16 Gb/s.
    _geforce("rtx-4070-laptop", 89, sms=36, clock=2.175, bandwidth=256),
    # Ada whitepaper, GeForce RTX 4090: 128 SMs, 2520 MHz; 165.2 / 330.3 TFLOPS, int8 660.6 TOPS, 1008 GB/s.
    _geforce("rtx-4090", 89, sms=128, clock=2.52, bandwidth=1008),
    # RTX Blackwell whitepaper, GeForce RTX 5090: 170 SMs, 2407 MHz; 209.5 / 419 TFLOPS, int8 838 TOPS, 1792 GB/s.
    _geforce("rtx-5090", 120, sms=170, clock=2.407, bandwidth=1792),
    # H100 SXM5 data sheet, halved where it states sparsity: 989.4 TFLOPS, int8 and float8 1979, 3.35 TB/s.
    Gpu(
        name="h100", sm=90, int8=1979e12, float16=989.4e12, float16_short=989.4e12, float8=1979e12, bandwidth=3350e9,
        geforce=False,
    ),
)  # fmt: skip
GPUS: Final = {gpu.name: gpu for gpu in _ALL}
