"""The back ends that engines are built for: one row each."""

from ...engine.errors import RequestError
from ..target import Target
from .cpu.target import CpuTarget
from .cuda.target import CUDA_TARGETS
from .onnx.target import OnnxHalfTarget
from .rtx.target import RTX_TARGETS
from .tensorrt.target import TensorRTTarget

_ROWS: tuple[Target, ...] = (CpuTarget(), OnnxHalfTarget(), *RTX_TARGETS, TensorRTTarget(), *CUDA_TARGETS)
TARGETS: dict[str, Target] = {target.name: target for target in _ROWS}


def find_target(name: str) -> Target:
    """The target of that name; `RequestError` lists those that there are."""
    try:
        return TARGETS[name]
    except KeyError:
        raise RequestError(f"unknown target {name!r}: choose one of {', '.join(TARGETS)}") from None
