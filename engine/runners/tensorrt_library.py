"""The library TensorRT for RTX: its import, and what it has to say about a failure."""

from typing import Any

from ..errors import IncompatibleError
from ..install import install_advice

_MOST_KEPT = 50


def import_tensorrt() -> Any:
    """The `tensorrt_rtx` package, or an `IncompatibleError` that says how to install it."""
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        raise IncompatibleError(
            f"engines for TensorRT for RTX need it, and it is not here ({error}); {install_advice('rtx')}"
        ) from error
    return tensorrt_rtx


def error_log(trt: Any) -> Any:
    """A logger that prints nothing and keeps errors: `summary()` tells the last ones, `forget()` drops them."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Called by the library, from threads of its own too."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (self.ERROR, self.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))
                del self.errors[:-_MOST_KEPT]

        def summary(self) -> str:
            return "; ".join(self.errors[-3:])[:500] or "it does not say why"

        def forget(self) -> None:
            self.errors.clear()

    return Log()
