"""What the machine is: processor, memory and GPU."""

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PocketXLError
from ..runners.cores import processors
from ..runners.cuda_driver import CudaDriver
from ..runners.processor import processor_name

_BUS = Path("/sys/bus/pci/devices")
_MEMINFO = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
_VERSION_BYTES = 80  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE


@dataclass(frozen=True, kw_only=True)
class Host:
    """The processor and its memory."""

    processor: str
    """Its model, and the instructions that integer kernels differ by."""
    cores: int
    """Those that this process may keep busy: threads inside one operator, unless it is told."""
    cores_reason: str
    """Why these, and no more."""
    memory_bytes: int | None
    """Of the machine, or of the container that this is; None where the system does not tell."""
    free_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first NVIDIA GPU, opened and asked."""

    name: str
    compute_capability: str
    """`8.9`."""
    memory_bytes: int
    free_bytes: int
    driver: str
    """Its version; empty where it does not say."""
    cuda: str
    """The newest version that the driver serves."""

    @property
    def target(self) -> str:
        """The target that builds for this card alone."""
        return f"rtx-sm{self.compute_capability.replace('.', '')}"


def host() -> Host:
    """The machine at hand."""
    total, free = _memory()
    ours = processors()
    return Host(
        processor=processor_name(),
        cores=ours.threads,
        cores_reason=ours.reason,
        memory_bytes=total,
        free_bytes=free,
    )


def gpu() -> Gpu | str:
    """The GPU, or a sentence that says why there is none that can be used."""
    try:
        driver = CudaDriver()
    except PocketXLError as error:
        if _plugged_in():
            return f"an NVIDIA GPU is plugged in, but cannot be used: {error}"
        return str(error)
    try:
        free, total = driver.memory()
        return Gpu(
            name=driver.device_name(),
            compute_capability="{}.{}".format(*driver.compute_capability()),
            memory_bytes=total,
            free_bytes=free,
            driver=_driver_version(),
            cuda="{}.{}".format(*driver.cuda_version()),
        )
    except PocketXLError as error:
        return str(error)
    finally:
        driver.close()


def _plugged_in() -> bool:
    """Whether the PCI bus has an NVIDIA display controller; only Linux tells."""
    for device in _BUS.glob("*"):
        try:
            kind = (device / "class").read_text()
            if kind.startswith(_DISPLAY) and (device / "vendor").read_text().strip() == _NVIDIA:
                return True
        except OSError:
            continue
    return False


def _driver_version() -> str:
    """NVIDIA's own number (`580.65.06`), from the management library that comes with every driver."""
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(_VERSION_BYTES)
        if library.nvmlInit_v2():
            return ""
        library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(_VERSION_BYTES))
        library.nvmlShutdown()
    except (OSError, AttributeError):
        return ""
    return text.value.decode(errors="replace")


def _memory() -> tuple[int | None, int | None]:
    """All and free bytes; what a container is allowed counts as all."""
    if sys.platform == "win32":
        return _windows_memory()
    total, free = _linux_memory()
    if total is None and hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = (_number(_CONTAINER / name) for name in ("memory.max", "memory.current"))
    if total is not None and limit is not None and limit < total:
        total, free = limit, None if used is None else max(0, min(limit - used, limit if free is None else free))
    return total, free


def _linux_memory() -> tuple[int | None, int | None]:
    try:
        lines = _MEMINFO.read_text()
    except OSError:
        return None, None
    found = {name: int(size) << 10 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", lines, re.M)}
    return found.get("MemTotal"), found.get("MemAvailable")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # `max`
        return None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("dwLength", ctypes.c_uint32),
        ("dwMemoryLoad", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in (
            "ullTotalPhys", "ullAvailPhys", "ullTotalPageFile", "ullAvailPageFile", "ullTotalVirtual",
            "ullAvailVirtual", "ullAvailExtendedVirtual",
        )),
    )  # fmt: skip


def _windows_memory() -> tuple[int | None, int | None]:
    status = _MemoryStatus(dwLength=ctypes.sizeof(_MemoryStatus))
    kernel: Any = ctypes.CDLL("kernel32.dll")
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return status.ullTotalPhys, status.ullAvailPhys
