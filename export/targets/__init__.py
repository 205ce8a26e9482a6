"""The back ends that engines are built for: one row each."""

from ...engine.errors import RequestError
from ..target import Target
from .cpu.target import CpuTarget
from .cuda.target import CUDA_TARGETS
from .onnx.target import OnnxHalfTarget
from .openvino.target import OpenVinoTarget
from .rtx.profiles import LARGEST
from .rtx.target import RTX_TARGETS
from .tensorrt.target import TensorRTTarget

_ROWS: tuple[Target, ...] = (
    CpuTarget(),
    OpenVinoTarget(),
    OnnxHalfTarget(),
    *RTX_TARGETS,
    TensorRTTarget(),
    *CUDA_TARGETS,
)
TARGETS: dict[str, Target] = {target.name: target for target in _ROWS}


def find_target(name: str) -> Target:
    """The target of that name; `RequestError` lists those that there are."""
    try:
        return TARGETS[name]
    except KeyError:
        raise RequestError(f"unknown target {name!r}: choose one of {', '.join(TARGETS)}") from None


SIZES = range(LARGEST, 2048 + 1, 64)
"""What a largest picture may be. Fewer pixels than by itself would save nothing; at 2048² the widest tensor of SDXL's
VAE has 2³⁰ numbers, half of what TensorRT counts, and more was not tried."""


def sized_target(name: str, largest: int | None) -> Target:
    """The target of that name for pictures of up to `largest` pixels a side (None: as many as it takes by itself).

    Raises `RequestError` for a name or size that is none.
    """
    target = find_target(name)
    if largest is None:
        return target
    if not isinstance(largest, int) or largest not in SIZES:
        raise RequestError(
            f"largest is {largest!r}; it must be a multiple of {SIZES.step} from {SIZES[0]} to {SIZES[-1]} pixels"
        )
    return target.sized(largest)
