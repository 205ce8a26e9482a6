"""The GPU architectures that kernels are compiled for, and what bounds a kernel there."""

from dataclasses import dataclass
from typing import Final

from .errors import UnsupportedArchitectureError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One compute capability.

    `shared_memory` is what one block may use, in bytes (CUDA programming guide, table of compute capabilities, less the
    kilobyte that the driver keeps). `wgmma`: matrix instructions are issued by four warps together. `fp8`: there are
    e4m3 matrix instructions.
    """

    sm: int
    shared_memory: int
    wgmma: bool = False
    fp8: bool = False
    examples: str


_ALL: Final = (
    Architecture(sm=80, shared_memory=166_912, examples="A100"),
    Architecture(sm=86, shared_memory=101_376, examples="RTX 30 series, A10"),
    Architecture(sm=89, shared_memory=101_376, fp8=True, examples="RTX 40 series, L4"),
    Architecture(sm=90, shared_memory=232_448, wgmma=True, fp8=True, examples="H100, H200"),
    Architecture(sm=120, shared_memory=101_376, fp8=True, examples="RTX 50 series"),
)
GPU_ARCHITECTURES: Final = {item.sm: item for item in _ALL}


def architecture(sm: int) -> Architecture:
    """The architecture of a compute capability, 89 for 8.9.

    Raises `UnsupportedArchitectureError`: no kernels for it; names those there are.
    """
    if sm in GPU_ARCHITECTURES:
        return GPU_ARCHITECTURES[sm]
    known = ", ".join(f"sm_{item.sm} ({item.examples})" for item in _ALL)
    hint = (
        "Triton has no matrix instructions for Turing; build a TensorRT engine: pocketxl build --target rtx-sm75"
        if sm == 75
        else "build a TensorRT engine instead (pocketxl build --target rtx-sm…), or run float16 in torch"
    )
    raise UnsupportedArchitectureError(f"no kernels for sm_{sm}: there are kernels for {known}; {hint}")
