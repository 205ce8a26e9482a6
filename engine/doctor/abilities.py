"""Which targets can be built and run on this machine, and what mends it where they cannot."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import IncompatibleError
from ..install import install_advice
from ..runners.tensorrt_library import import_tensorrt
from .machine import Gpu
from .packages import Package, packages

# target → deed → the extra that brings all its packages; `run` of what is in `ON_A_GPU` needs a card besides.
NEEDS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "cpu": {"run": ("cpu",), "build": ("export",)},
    "onnx-fp16": {"run": ("cpu",), "build": ("export",)},
    "rtx": {"run": ("rtx",), "build": ("export", "rtx")},
}
ON_A_GPU = {"rtx"}
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
    if target in ON_A_GPU and not (platform.system() in ("Linux", "Windows") and platform.machine().lower() in X86):
        return ["TensorRT for RTX is for Linux and Windows on x86-64; use another machine"]
    fixes = [fix for extra in extras if (fix := _install(extra, packages(extra))) is not None]
    if target in ON_A_GPU and deed == "run":
        if isinstance(gpu, str):
            fixes.append(gpu)
        elif (unknown := _unknown_card(gpu)) is not None:
            fixes.append(unknown)
    return fixes


def _install(extra: str, wanted: Sequence[Package]) -> str | None:
    problems = [package.problem for package in wanted if package.problem is not None]
    if not problems:
        return None
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return f"{', '.join(problems[:3])}{more}; {install_advice(extra)}"


def _unknown_card(gpu: Gpu) -> str | None:
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
