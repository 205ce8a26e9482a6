"""What Windows tells of its processors: cores with their class of efficiency, the affinity, and a job's limit."""

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .cores import Processors

_CORES = 0  # RelationProcessorCore
_RATE_CONTROL = 15  # JobObjectCpuRateControlInformation
_ENABLED_HARD_CAP = 1 | 4  # JOB_OBJECT_CPU_RATE_CONTROL_ENABLE, _HARD_CAP: what a container's limit is made of
_WHOLE_MACHINE = 10_000  # a rate is in hundredths of a percent of all processors' time


@dataclass(frozen=True, kw_only=True)
class Core:
    """One physical core. `efficiency`: higher is faster. `masks`: processor group → bits of its hardware threads."""

    efficiency: int
    masks: dict[int, int]

    def threads(self, allowed: tuple[int, int] | None = None) -> int:
        """How many hardware threads it has; `allowed`: of this group and these bits only."""
        if allowed is None:
            return sum(mask.bit_count() for mask in self.masks.values())
        return (self.masks.get(allowed[0], 0) & allowed[1]).bit_count()


def windows_processors(kernel: Any) -> Processors | None:
    """`kernel`: the functions of kernel32.dll. None if it does not tell."""
    cores = list(parsed(_core_records(kernel)))
    machine = sum(core.threads() for core in cores)
    if not machine:
        return None
    allowed = _affinity(kernel)
    ours = [core for core in cores if core.threads(allowed)] or cores
    best = max(core.efficiency for core in ours)
    return Processors(
        machine=machine,
        allowed=sum(core.threads(allowed) for core in ours) or machine,
        cores=len(ours),
        fast=sum(core.efficiency == best for core in ours),
        quota=_quota(kernel, machine),
    )


def parsed(records: bytes) -> Iterator[Core]:
    """Cores from the system's records (SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX on 64 bits).

    Each: kind and size (4 bytes each), flags and class of efficiency (1 each), 20 bytes of nothing, the number of
    groups (2), and 16 for each of them: mask (8), group (2), nothing.
    """
    place = 0
    while place + 32 <= len(records):
        kind, size = struct.unpack_from("<II", records, place)
        if kind == _CORES:
            efficiency, groups = struct.unpack_from("<xB20xH", records, place + 8)
            found = [struct.unpack_from("<QH6x", records, place + 32 + 16 * index) for index in range(groups)]
            yield Core(efficiency=efficiency, masks={group: mask for mask, group in found})
        if size <= 0:
            return
        place += size


def kernel32() -> Any:
    """The system's own functions."""
    kernel: Any = ctypes.CDLL("kernel32.dll")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    return kernel


def _core_records(kernel: Any) -> bytes:
    length = ctypes.c_uint32(0)
    kernel.GetLogicalProcessorInformationEx(_CORES, None, ctypes.byref(length))  # fails, and tells the length
    buffer = ctypes.create_string_buffer(length.value)
    if not length.value or not kernel.GetLogicalProcessorInformationEx(_CORES, buffer, ctypes.byref(length)):
        return b""
    return buffer.raw[: length.value]


def _affinity(kernel: Any) -> tuple[int, int] | None:
    """Group and bits of the processors that the process is held to; None if it is not held to any.

    The masks are of the process's own group, so a process with all of its group's bits may run on other groups too.
    """
    own, all_ = ctypes.c_size_t(0), ctypes.c_size_t(0)
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    if not kernel.GetProcessAffinityMask(process, ctypes.byref(own), ctypes.byref(all_)):
        return None
    if not own.value or own.value == all_.value:
        return None
    groups, count = (ctypes.c_uint16 * 1)(), ctypes.c_uint16(1)
    if not kernel.GetProcessGroupAffinity(process, ctypes.byref(count), groups):
        return None  # several groups
    return int(groups[0]), own.value


class _RateControl(ctypes.Structure):
    """JOBOBJECT_CPU_RATE_CONTROL_INFORMATION of the Windows API."""

    _fields_ = (("ControlFlags", ctypes.c_uint32), ("CpuRate", ctypes.c_uint32))


def _quota(kernel: Any, machine: int) -> float | None:
    """Processors' worth of time that the process's job allows."""
    found = _RateControl()
    size = ctypes.sizeof(found)
    if not kernel.QueryInformationJobObject(None, _RATE_CONTROL, ctypes.byref(found), size, None):
        return None
    if found.ControlFlags & _ENABLED_HARD_CAP != _ENABLED_HARD_CAP or not found.CpuRate:
        return None
    return float(machine * found.CpuRate / _WHOLE_MACHINE)
