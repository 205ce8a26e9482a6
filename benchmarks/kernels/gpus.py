"""What vendors state of GPUs, dense (never with sparsity): the ground of predictions.

Peaks are multiprocessors × operations per clock × the highest boost clock. Per multiprocessor and clock, consumer
Ampere, Ada and Blackwell do 1024 float16 operations with float16 sums, half as many with float32 sums, and 2048 of int8
(NVIDIA Ampere GA102 whitepaper, table "Comparison of GeForce Tensor Cores"; Ada whitepaper, appendix A; RTX Blackwell
whitepaper, appendix A); Hopper 4096 of float16 whatever its sums, and 8192 of int8 (what the H100's data sheet comes
to, by its multiprocessors and clock). A laptop that is held to less power clocks lower.
"""

from dataclasses import dataclass
from typing import Final

from pocketxl.kernels.architecture import Architecture, architecture


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. `sm`: its architecture. `clock`: hertz. `bandwidth`: bytes a second. `geforce`: no data-centre card."""

    name: str
    sm: int
    multiprocessors: int
    clock: float
    bandwidth: float
    geforce: bool = True

    @property
    def int8_per_clock(self) -> int:
        """Operations of a multiprocessor's tensor cores in one clock, on int8."""
        return 2048 if self.geforce else 8192

    @property
    def float16_per_clock(self) -> int:
        """The same on float16 with float32 sums."""
        return 512 if self.geforce else 4096

    @property
    def float16_short_per_clock(self) -> int:
        """The same on float16 with float16 sums."""
        return 1024 if self.geforce else 4096

    @property
    def int8(self) -> float:
        """Operations of the whole GPU in a second, on int8."""
        return self.int8_per_clock * self._clocks

    @property
    def float16(self) -> float:
        """The same on float16 with float32 sums."""
        return self.float16_per_clock * self._clocks

    @property
    def float16_short(self) -> float:
        """The same on float16 with float16 sums."""
        return self.float16_short_per_clock * self._clocks

    @property
    def architecture(self) -> Architecture:
        """What plans are made for: the architecture, with this card's number of multiprocessors."""
        return architecture(self.sm, self.multiprocessors)

    @property
    def _clocks(self) -> float:
        return self.multiprocessors * self.clock


def _gpu(name: str, sm: int, *, sms: int, clock: float, bandwidth: float, geforce: bool = True) -> Gpu:
    """`clock` in GHz, `bandwidth` in GB/s."""
    return Gpu(
        name=name, sm=sm, multiprocessors=sms, clock=clock * 1e9, bandwidth=bandwidth * 1e9, geforce=geforce
    )  # fmt: skip


_ALL: Final = (
    # GA107: 16 SMs (2048 cores), 4 GB, boost 1057-1740 MHz (NVIDIA's laptop table), 128 bits of 12 Gb/s GDDR6.
    _gpu("rtx-3050-laptop", 86, sms=16, clock=1.74, bandwidth=192),
    # GA106: 28 SMs (3584 cores), boost 1777 MHz, 192 bits of 15 Gb/s GDDR6 (NVIDIA's table, RTX 3060 of 12 GB).
    _gpu("rtx-3060", 86, sms=28, clock=1.777, bandwidth=360),
    # GA106: 30 SMs, boost 1283-1703 MHz (NVIDIA's laptop table), 192 bits of 14 Gb/s GDDR6.
    _gpu("rtx-3060-laptop", 86, sms=30, clock=1.703, bandwidth=336),
    # GA102 whitepaper, GeForce RTX 3090: 82 SMs, 1695 MHz; 71 / 142 TFLOPS, int8 284 TOPS, 936 GB/s.
    _gpu("rtx-3090", 86, sms=82, clock=1.695, bandwidth=936),
    # AD106: 36 SMs, boost up to 2175 MHz (NVIDIA's laptop table, "321 AI TOPS" with sparsity), 128 bits of 16 Gb/s.
    _gpu("rtx-4070-laptop", 89, sms=36, clock=2.175, bandwidth=256),
    # Ada whitepaper, GeForce RTX 4090: 128 SMs, 2520 MHz; 165.2 / 330.3 TFLOPS, int8 660.6 TOPS, 1008 GB/s.
    _gpu("rtx-4090", 89, sms=128, clock=2.52, bandwidth=1008),
    # RTX Blackwell whitepaper, GeForce RTX 5090: 170 SMs, 2407 MHz; 209.5 / 419 TFLOPS, int8 838 TOPS, 1792 GB/s.
    _gpu("rtx-5090", 120, sms=170, clock=2.407, bandwidth=1792),
    # H100 SXM5 data sheet, halved where it states sparsity: 989.4 TFLOPS, int8 1979 TOPS, so 1830 MHz; 3.35 TB/s.
    _gpu("h100", 90, sms=132, clock=1.83, bandwidth=3350, geforce=False),
)
GPUS: Final = {gpu.name: gpu for gpu in _ALL}
