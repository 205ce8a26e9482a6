"""PocketXL's runtime: SDXL base and refiner from an engine folder, on ONNX Runtime or TensorRT, without torch.

    from pocketxl.engine import Pipeline
    Pipeline.load()("a red apple on a blue background").images[0].save("apple.png")

Importing this package loads nothing yet, each name when it is first used; the pipeline itself needs numpy and the
standard library, and everything else waits until a picture needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .check import ComponentCheck, check_engine
    from .errors import (
        IncompatibleError,
        IntegrityError,
        MemoryBudgetError,
        NumericError,
        PocketXLError,
        QualityError,
        RequestError,
        StorageError,
    )
    from .memory.plan import MemoryPlan
    from .output import Output
    from .pipeline import Pipeline
    from .prepare import Preparation, forget_prepared, prepare_engine
    from .progress import ProgressEvent
    from .request.keywords import CallOptions
    from .request.prompt import escape
    from .request.request import GenerationRequest, ResolvedRequest
    from .request.sizes import size_of
    from .request.styles import Style, read_styles
    from .upscaling.upscaler import Upscaler

__version__: str
"""PocketXL's."""

_HOMES = {
    "check": ("ComponentCheck", "check_engine"),
    "output": ("Output",),
    "request.keywords": ("CallOptions",),
    "request.prompt": ("escape",),
    "request.request": ("GenerationRequest", "ResolvedRequest"),
    "request.sizes": ("size_of",),
    "request.styles": ("Style", "read_styles"),
    "errors": (
        "IncompatibleError",
        "IntegrityError",
        "MemoryBudgetError",
        "NumericError",
        "PocketXLError",
        "QualityError",
        "RequestError",
        "StorageError",
    ),
    "memory.plan": ("MemoryPlan",),
    "pipeline": ("Pipeline",),
    "prepare": ("Preparation", "forget_prepared", "prepare_engine"),
    "progress": ("ProgressEvent",),
    "upscaling.upscaler": ("Upscaler",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CallOptions",
    "ComponentCheck",
    "GenerationRequest",
    "IncompatibleError",
    "IntegrityError",
    "MemoryBudgetError",
    "MemoryPlan",
    "NumericError",
    "Output",
    "Pipeline",
    "PocketXLError",
    "Preparation",
    "ProgressEvent",
    "QualityError",
    "RequestError",
    "ResolvedRequest",
    "StorageError",
    "Style",
    "Upscaler",
    "__version__",
    "check_engine",
    "escape",
    "forget_prepared",
    "prepare_engine",
    "read_styles",
    "size_of",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read from the installed package: that is slower than all the rest of this import
        from importlib.metadata import version

        return version("pocketxl")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
