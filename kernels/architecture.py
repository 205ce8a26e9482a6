"""The GPU architectures that kernels are compiled for, and what bounds a kernel there."""

from dataclasses import dataclass, replace
from typing import Final

from .errors import UnsupportedArchitectureError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One compute capability.

    `shared_memory` is what one block may use, in bytes (CUDA programming guide, table of compute capabilities, less the
    kilobyte that the driver keeps). `wgmma`: matrix instructions are issued by four warps together. `fp8`: there are
    e4m3 matrix instructions. `half_sums`: those that sum in float16 take half the time of those that sum in float32, on
    GeForce cards (NVIDIA's whitepapers of GA102, Ada and RTX Blackwell). `l2`: bytes of L2 cache for each
    multiprocessor, of the card that the tables are for (the same whitepapers, and those of A100 and H100).
    `multiprocessors`: of the card; where it is not said, those of the one that the tables are for. How work is shared
    out follows from it, what is compiled does not.
    """

    sm: int
    shared_memory: int
    wgmma: bool = False
    fp8: bool = False
    half_sums: bool = False
    l2: int
    multiprocessors: int
    examples: str

    def programs(self, there: int) -> int:
        """How many programs run at once on this card, where `there` do on the one that the tables are for."""
        return max(1, there * self.multiprocessors // GPU_ARCHITECTURES[self.sm].multiprocessors)


_ALL: Final = (
    Architecture(sm=80, shared_memory=166_912, l2=388_000, multiprocessors=108, examples="A100"),
    Architecture(
        sm=86, shared_memory=101_376, half_sums=True, l2=76_000, multiprocessors=82, examples="RTX 30 series, A10"
    ),
    Architecture(
        sm=89,
        shared_memory=101_376,
        fp8=True,
        half_sums=True,
        l2=589_000,
        multiprocessors=128,
        examples="RTX 40 series, L4",
    ),
    Architecture(
        sm=90, shared_memory=232_448, wgmma=True, fp8=True, l2=397_000, multiprocessors=132, examples="H100, H200"
    ),
    Architecture(
        sm=120,
        shared_memory=101_376,
        fp8=True,
        half_sums=True,
        l2=592_000,
        multiprocessors=170,
        examples="RTX 50 series",
    ),
)
GPU_ARCHITECTURES: Final = {item.sm: item for item in _ALL}


def architecture(sm: int, multiprocessors: int | None = None) -> Architecture:
    """The architecture of a compute capability, 89 for 8.9, of a card with so many multiprocessors.

    Raises `UnsupportedArchitectureError`: no kernels for it; names those there are.
    """
    if sm in GPU_ARCHITECTURES:
        found = GPU_ARCHITECTURES[sm]
        return found if multiprocessors is None else replace(found, multiprocessors=multiprocessors)
    known = ", ".join(f"sm_{item.sm} ({item.examples})" for item in _ALL)
    hint = (
        "Triton has no matrix instructions for Turing; build a TensorRT engine: pocketxl build --target rtx-sm75"
        if sm == 75
        else "build a TensorRT engine instead (pocketxl build --target rtx-sm…), or run float16 in torch"
    )
    raise UnsupportedArchitectureError(f"no kernels for sm_{sm}: there are kernels for {known}; {hint}")
