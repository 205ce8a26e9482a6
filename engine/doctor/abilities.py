"""Which targets can be built and run on this machine, and what mends it where they cannot."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...kernels.architecture import GPU_ARCHITECTURES
from ..errors import IncompatibleError
from ..install import install_advice
from ..runners.tensorrt_library import import_tensorrt
from .machine import Gpu
from .packages import Package, packages

# target → deed → the extra that brings all its packages; `run` of what is in `CARDS` needs a card besides.
NEEDS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "cpu": {"run": ("cpu",), "build": ("export",)},
    "onnx-fp16": {"run": ("cpu",), "build": ("export",)},
    "rtx": {"run": ("rtx",), "build": ("export", "rtx")},
    "cuda": {"run": ("cpu",), "build": ("export", "cuda")},
}
X86 = {"x86_64", "amd64"}


@dataclass(frozen=True, kw_only=True)
class Ability:
    """One thing that can be done with a target's engines."""

    target: str
    deed: str
    """`run` or `build`."""
    fixes: tuple[str, ...]
    """What is missing, each with what mends it; empty if it can be done."""

    @property
    def possible(self) -> bool:
        """Whether it can be done here."""
        return not self.fixes


def abilities(gpu: Gpu | str) -> tuple[Ability, ...]:
    """All of them; `gpu` as `machine.gpu` found it."""
    return tuple(
        Ability(target=target, deed=deed, fixes=tuple(_fixes(target, deed, extras, gpu)))
        for target, deeds in NEEDS.items()
        for deed, extras in deeds.items()
    )


def _fixes(target: str, deed: str, extras: Sequence[str], gpu: Gpu | str) -> list[str]:
    x86 = platform.system() in ("Linux", "Windows") and platform.machine().lower() in X86
    if target == "rtx" and not x86:
        return ["TensorRT for RTX is for Linux and Windows on x86-64; use another machine"]
    if (target, deed) == ("cuda", "build") and platform.system() != "Linux":
        return ["its kernels are compiled by Triton, which is for Linux; build there, the engine runs on Windows too"]
    fixes = [fix for extra in extras if (fix := _install(extra, packages(extra))) is not None]
    if target in CARDS and deed == "run":
        if isinstance(gpu, str):
            fixes.append(gpu)
        elif (unknown := CARDS[target](gpu)) is not None:
            fixes.append(unknown)
    return fixes


def _install(extra: str, wanted: Sequence[Package]) -> str | None:
    problems = [package.problem for package in wanted if package.problem is not None]
    if not problems:
        return None
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return f"{', '.join(problems[:3])}{more}; {install_advice(extra)}"


def _unknown_to_tensorrt(gpu: Gpu) -> str | None:
    """What the library says of the card, where the library is here."""
    try:
        trt = import_tensorrt()
    except IncompatibleError:
        return None  # the missing package is told already
    if f"SM{gpu.compute_capability.replace('.', '')}" in trt.ComputeCapability.__members__:
        return None
    return (
        f"TensorRT for RTX {trt.__version__} has no kernels for compute capability {gpu.compute_capability}; "
        "build with --target cpu"
    )


def _without_kernels(gpu: Gpu) -> str | None:
    """What the library of kernels says of the card: binaries run on the same or a later minor of their major."""
    major, minor = (int(number) for number in gpu.compute_capability.split("."))
    if any(sm // 10 == major and sm % 10 <= minor for sm in GPU_ARCHITECTURES):
        return None
    known = ", ".join(item.examples for item in GPU_ARCHITECTURES.values())
    return (
        f"there are no kernels for compute capability {gpu.compute_capability} (there are for {known}); "
        "build with --target rtx or cpu"
    )


CARDS: Mapping[str, Callable[[Gpu], str | None]] = {"rtx": _unknown_to_tensorrt, "cuda": _without_kernels}
"""What runs on a card only, and what is wrong with one."""
