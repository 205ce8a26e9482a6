"""Why TensorRT refuses an engine, in one sentence with the fix.

TensorRT for RTX has a check of its own, which looks at an engine's header only. It is asked when an engine could not be
opened, never before: on GPUs outside the library's list it is reported to call engines invalid that then run. TensorRT
has none; what is known of it is what it logs.
"""

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import IncompatibleError, MemoryBudgetError
from .device import CudaDevice
from .tensorrt_library import RTX, TensorRTLibrary

_NOTHING_ELSE = "give a smaller --budget, close other programs that use the GPU, or build with a smaller recipe"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What the sentences speak of."""

    path: Path
    version: str
    """Of the installed library."""
    architectures: frozenset[str]
    """That the library knows: `SM89`."""
    gpu: str
    capability: tuple[int, int]
    cuda: tuple[int, int]
    """The newest version that the driver serves."""

    @property
    def architecture(self) -> str:
        """Of the GPU at hand, as the library writes it."""
        return f"SM{self.capability[0]}{self.capability[1]}"


def _other_card(refused: Refused) -> str:
    here = f"this {refused.gpu} (compute capability {refused.capability[0]}.{refused.capability[1]})"
    if refused.architecture not in refused.architectures:
        return f"TensorRT for RTX {refused.version} has no kernels for {here}; {other_target(refused.capability)}"
    target = f"rtx-{refused.architecture.lower()}"
    return f"{refused.path} was built for other GPUs than {here}; build it with --target {target}"


def other_target(capability: tuple[int, int]) -> str:
    """What to do with a card that TensorRT for RTX has no kernels for."""
    if capability < (7, 5):
        return "build with --target onnx-fp16 or cpu"
    ours = "" if capability >= (10, 0) else "with --target cuda, or "
    return f"build {ours}on this machine with --target tensorrt"


# Diagnostic → sentence; what must be mended first comes first, because several can hold at once.
SENTENCES: dict[str, Callable[[Refused], str]] = {
    "CUDA_ERROR": lambda r: (
        "the NVIDIA driver does not work as installed; start the machine again, or install the driver again"
    ),
    "OLD_CUDA_DRIVER": lambda r: (
        f"the NVIDIA driver serves CUDA {r.cuda[0]}.{r.cuda[1]} and is too old for {r.path}; update the driver"
    ),
    "OLD_CUDA_RUNTIME": lambda r: (
        f"{r.path} needs a newer CUDA than the installed TensorRT for RTX {r.version} brings; "
        "update the package, or build the engine again with it"
    ),
    "VERSION_MISMATCH": lambda r: (
        f"{r.path} was built with another version of TensorRT for RTX than the {r.version} "
        "that is installed; install the version that `pocketxl inspect` names, or build the engine again"
    ),
    "UNSUPPORTED_CC": _other_card,
    "MALFORMED_ENGINE": lambda r: f"{r.path} is no engine of TensorRT for RTX, whatever its hash; build it again",
}


def refusal(
    trt: Any, runtime: Any, log: Any, header: bytes, path: Path, device: CudaDevice, weights: int
) -> IncompatibleError | MemoryBudgetError:
    """The error for an engine that could not be opened; `weights` are the bytes that it needs at least."""
    driver = device.driver
    refused = Refused(
        path=path,
        version=trt.__version__,
        architectures=frozenset(trt.ComputeCapability.__members__),
        gpu=driver.device_name(),
        capability=driver.compute_capability(),
        cuda=driver.cuda_version(),
    )
    validity, found = runtime.get_engine_validity(header)
    if validity == trt.EngineValidity.INVALID:
        for name, sentence in SENTENCES.items():
            if int(found) & int(getattr(trt.EngineInvalidityDiagnostics, name)):
                return IncompatibleError(sentence(refused))
    if int(found) & int(trt.EngineInvalidityDiagnostics.INSUFFICIENT_GPU_MEMORY):
        return _too_large(path, device, weights)
    return _unexplained(RTX, refused.version, log, path, device, weights)


# What TensorRT logs → sentence. From reports to github.com/NVIDIA/TensorRT of versions up to 10.8; not seen here.
SAID: dict[str, str] = {
    "not compatible with this version": "{path} was built with another version of TensorRT than the {version} that is "
    "installed; install the version that `pocketxl inspect` names, or build the engine again",
    "incompatible device|incompatible platform": "{path} was built on another GPU or system than this {gpu}, and runs "
    "there alone; build it again on this machine",
}


def told_refusal(
    library: TensorRTLibrary, version: str, log: Any, path: Path, device: CudaDevice, weights: int
) -> IncompatibleError | MemoryBudgetError:
    """The same where all that is known is what the library has logged."""
    told = log.summary()
    for pattern, sentence in SAID.items():
        if re.search(pattern, told, re.IGNORECASE):
            gpu = device.driver.device_name()
            return IncompatibleError(sentence.format(path=path, version=version, gpu=gpu))
    return _unexplained(library, version, log, path, device, weights)


def _unexplained(
    library: TensorRTLibrary, version: str, log: Any, path: Path, device: CudaDevice, weights: int
) -> IncompatibleError | MemoryBudgetError:
    if device.driver.memory()[0] < weights or out_of_memory(log):
        return _too_large(path, device, weights)
    return IncompatibleError(
        f"{library.name} {version} cannot open {path} on this {device.driver.device_name()}: {log.summary()}; "
        f"update the NVIDIA driver, or build the engine again on {platform.system()}, if that was done elsewhere"
    )


def _too_large(path: Path, device: CudaDevice, weights: int) -> MemoryBudgetError:
    free, _ = device.driver.memory()
    return MemoryBudgetError(
        f"{path} needs {weights / 1e9:.2f} GB of GPU memory for its weights and room to run, and "
        f"{device.driver.device_name()} has {free / 1e9:.2f} GB free; {_NOTHING_ELSE}"
    )


def run_refusal(name: str, library: TensorRTLibrary, log: Any) -> IncompatibleError | MemoryBudgetError:
    """The error for a call that the library did not take."""
    if out_of_memory(log):
        return MemoryBudgetError(f"{name}: the GPU is out of memory; make a smaller picture, or {_NOTHING_ELSE}")
    return IncompatibleError(
        f"{name}: {library.name} could not run the engine: {log.summary()}; update the NVIDIA driver, or build the "
        "engine again"
    )


def out_of_memory(log: Any) -> bool:
    """Whether the library's last errors speak of memory."""
    text = log.summary().lower().replace("_", "").replace(" ", "")
    return "outofmemory" in text
