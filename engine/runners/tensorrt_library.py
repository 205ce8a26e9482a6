"""NVIDIA's two libraries of compiled networks: their import, and what they have to say about a failure.

TensorRT for RTX builds on any machine for GeForce cards, and compiles what is left on the card itself. TensorRT is the
one for data centres: it measures kernels on the card that it builds for, and its engines run there alone. What the
second lacks of the first is from its Python bindings' source (github.com/NVIDIA/TensorRT, 11.1): it has not run here
yet.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from ..errors import IncompatibleError
from ..install import install_advice

_MOST_KEPT = 50
_X86 = ("x86_64", "amd64")
_ARM = ("aarch64", "arm64")


@dataclass(frozen=True, kw_only=True)
class TensorRTLibrary:
    """One of the two: its name for people, its module, the extra of ours that brings it."""

    name: str
    module: str
    extra: str
    packages: Mapping[int, str]
    """Major version of CUDA → the distribution that is built with it; each brings the module."""
    machines: Mapping[str, tuple[str, ...]]
    """System → processors, as Python's `platform` calls them."""
    places: str
    """The same for people."""

    @property
    def no_machine(self) -> str | None:
        """What to say where it cannot be had, whatever is installed; None on a machine that it is for."""
        if platform.machine().lower() in self.machines.get(platform.system(), ()):
            return None
        return f"{self.name} is for {self.places}; use another machine"


RTX = TensorRTLibrary(
    name="TensorRT for RTX",
    module="tensorrt_rtx",
    extra="rtx",
    packages={12: "tensorrt-rtx-cu12", 13: "tensorrt-rtx-cu13"},
    machines={"Linux": _X86, "Windows": _X86},
    places="Linux and Windows on x86-64",
)
FULL = TensorRTLibrary(
    name="TensorRT",
    module="tensorrt",
    extra="tensorrt",
    packages={12: "tensorrt-cu12", 13: "tensorrt-cu13"},
    machines={"Linux": (*_X86, *_ARM), "Windows": _X86},
    places="Linux on x86-64 and ARM and for Windows on x86-64",
)
TENSORRT_LIBRARIES: Mapping[str, TensorRTLibrary] = {library.extra: library for library in (RTX, FULL)}


def import_tensorrt(library: TensorRTLibrary = RTX) -> Any:
    """Its module, or an `IncompatibleError` that says how to install it, or that it is not for this machine."""
    try:
        return import_module(library.module)
    except (ImportError, OSError) as error:
        if reason := library.no_machine:
            raise IncompatibleError(f"{reason}, or build with --target cpu") from error
        raise IncompatibleError(
            f"engines for {library.name} need it, and it is not here ({' '.join(str(error).split())[:300]}); "
            f"{install_advice(library.extra)}"
        ) from error


def driver_too_old(library: TensorRTLibrary, cuda: tuple[int, int]) -> str | None:
    """What is wrong where all packages of it that are here are for a later CUDA than the driver serves, or None."""
    installed = {major: name for major, name in library.packages.items() if _is_here(name)}
    if not installed or min(installed) <= cuda[0]:
        return None
    needed, name = min(installed.items())
    older = next((other for major, other in library.packages.items() if major <= cuda[0]), None)
    instead = f", or put {older} in its place (pip uninstall {name}; pip install {older})" if older else ""
    return (
        f"{name} needs an NVIDIA driver that serves CUDA {needed}, and this one serves {cuda[0]}.{cuda[1]}; update the "
        f"driver{instead}"
    )


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


def _is_here(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
