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


LARGEST_STEP, LARGEST_MOST = 64, 2048
"""What a largest picture may be a multiple of, and how large; beyond it a VAE's tensors have more numbers than
TensorRT counts (2³¹)."""


def sized_target(name: str, largest: int | None) -> Target:
    """The target of that name for pictures of up to `largest` pixels a side (None: what it has by itself).

    Raises `RequestError` for a name or size that is none.
    """
    target = find_target(name)
    if largest is None:
        return target
    if not isinstance(largest, int) or largest not in range(LARGEST_STEP, LARGEST_MOST + 1, LARGEST_STEP):
        raise RequestError(
            f"largest is {largest!r}; it must be a multiple of {LARGEST_STEP} from {LARGEST_STEP} to "
            f"{LARGEST_MOST} pixels"
        )
    return target.sized(largest)
