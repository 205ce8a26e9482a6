"""Which targets can be built and run on this machine, and what mends it where they cannot."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...kernels.architecture import GPU_ARCHITECTURES
from ..errors import IncompatibleError
from ..install import install_advice
from ..runners.openvino_session import unsuited_processor
from ..runners.tensorrt_library import FULL, RTX, TENSORRT_LIBRARIES, driver_too_old, import_tensorrt
from ..runners.tensorrt_refusal import other_target
from .machine import Gpu
from .packages import Package, packages

# target → deed → the extra that brings all its packages; what is in `CARDS` needs a card besides.
NEEDS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "cpu": {"run": ("cpu",), "build": ("export",)},
    "onnx-fp16": {"run": ("cpu",), "build": ("export",)},
    "openvino": {"run": ("openvino",), "build": ("export", "openvino")},
    "rtx": {"run": ("rtx",), "build": ("export", "rtx")},
    "tensorrt": {"run": ("tensorrt",), "build": ("export", "tensorrt")},
    "cuda": {"run": ("cpu",), "build": ("export", "cuda")},
}


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
    if target in TENSORRT_LIBRARIES and (reason := TENSORRT_LIBRARIES[target].no_machine) is not None:
        return [reason]
    if (target, deed) == ("cuda", "build") and platform.system() != "Linux":
        return ["its kernels are compiled by Triton, which is for Linux; build there, the engine runs on Windows too"]
    if target == "openvino" and (unsuited := unsuited_processor()) is not None:
        return [unsuited]
    fixes = [fix for extra in extras if (fix := _install(extra, packages(extra))) is not None]
    if (target, deed) in CARDS:
        if isinstance(gpu, str):
            fixes.append(gpu)
        elif (unsuited := CARDS[target, deed](gpu)) is not None:
            fixes.append(unsuited)
    return fixes


def _install(extra: str, wanted: Sequence[Package]) -> str | None:
    problems = [package.problem for package in wanted if package.problem is not None]
    if not problems:
        return None
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return f"{', '.join(problems[:3])}{more}; {install_advice(extra)}"


def _not_for_rtx(gpu: Gpu) -> str | None:
    """What the library says of the card, where the library is here."""
    if problem := driver_too_old(RTX, _versions(gpu.cuda)):
        return problem
    try:
        trt = import_tensorrt()
    except IncompatibleError:
        return None  # the missing package is told already
    if f"SM{gpu.compute_capability.replace('.', '')}" in trt.ComputeCapability.__members__:
        return None
    return (
        f"TensorRT for RTX {trt.__version__} has no kernels for compute capability {gpu.compute_capability}; "
        f"{other_target(_versions(gpu.compute_capability))}"
    )


def _not_for_tensorrt(gpu: Gpu) -> str | None:
    """TensorRT 11 is documented for Turing and later."""
    if _versions(gpu.compute_capability) < OLDEST_FOR_TENSORRT:
        return (
            f"TensorRT is for compute capability 7.5 and later, and this is {gpu.compute_capability}; "
            f"{other_target(_versions(gpu.compute_capability))}"
        )
    return driver_too_old(FULL, _versions(gpu.cuda))


def _without_kernels(gpu: Gpu) -> str | None:
    """What the library of kernels says of the card: binaries run on the same or a later minor of their major."""
    major, minor = _versions(gpu.compute_capability)
    if any(sm // 10 == major and sm % 10 <= minor for sm in GPU_ARCHITECTURES):
        return None
    known = ", ".join(item.examples for item in GPU_ARCHITECTURES.values())
    return (
        f"there are no kernels for compute capability {gpu.compute_capability} (there are for {known}); "
        "build with --target rtx or cpu"
    )


def _versions(text: str) -> tuple[int, int]:
    """`8.9` → (8, 9)."""
    major, minor = (int(number) for number in text.split("."))
    return major, minor


OLDEST_FOR_TENSORRT = (7, 5)
CARDS: Mapping[tuple[str, str], Callable[[Gpu], str | None]] = {
    ("rtx", "run"): _not_for_rtx,
    ("tensorrt", "run"): _not_for_tensorrt,
    ("tensorrt", "build"): _not_for_tensorrt,
    ("cuda", "run"): _without_kernels,
}
"""What is done on a card only, and what is wrong with one."""
