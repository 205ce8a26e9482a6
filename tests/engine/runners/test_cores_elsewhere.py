"""The same on Windows and macOS, whose functions are stood in for: neither has been run."""

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from pocketxl.engine.runners.cores_macos import macos_processors, sysctl
from pocketxl.engine.runners.cores_windows import Core, parsed, windows_processors

Masks = dict[int, int]


def record(efficiency: int, masks: Masks) -> bytes:
    """One SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX of a core, as winnt.h lays it out on 64 bits."""
    groups = b"".join(struct.pack("<QHHHH", mask, group, 0, 0, 0) for group, mask in masks.items())
    smt = any(mask.bit_count() > 1 for mask in masks.values())
    body = struct.pack("<BB20sH", smt, efficiency, b"", len(masks)) + groups
    return struct.pack("<II", 0, 8 + len(body)) + body


def uniform(cores: int, threads: int = 2, *, efficiency: int = 0, first: int = 0, group: int = 0) -> list[bytes]:
    each = (1 << threads) - 1
    return [record(efficiency, {group: each << (first + threads * index)}) for index in range(cores)]


class Kernel:
    """kernel32.dll, as far as it is asked."""

    def __init__(self, records: Sequence[bytes], own: int = 0, all_: int = 0, group: int = 0, rate: int = 0) -> None:
        self.records, self.own, self.all, self.group, self.rate = b"".join(records), own, all_, group, rate

    def GetCurrentProcess(self) -> int:  # noqa: N802
        return -1

    def GetLogicalProcessorInformationEx(self, kind: int, buffer: Any, length: Any) -> int:  # noqa: N802
        fits = buffer is not None and length._obj.value >= len(self.records)
        length._obj.value = len(self.records)
        if fits:
            ctypes.memmove(buffer, self.records, len(self.records))
        return int(fits)

    def GetProcessAffinityMask(self, process: Any, own: Any, all_: Any) -> int:  # noqa: N802
        own._obj.value, all_._obj.value = self.own, self.all
        return 1

    def GetProcessGroupAffinity(self, process: Any, count: Any, groups: Any) -> int:  # noqa: N802
        groups[0] = self.group
        return 1

    def QueryInformationJobObject(self, job: Any, kind: int, found: Any, size: int, length: Any) -> int:  # noqa: N802
        assert (job, kind, size) == (None, 15, 8)
        found._obj.ControlFlags, found._obj.CpuRate = (5, self.rate) if self.rate else (0, 0)
        return 1


CORE_I7_12700 = [*uniform(8, efficiency=1), *uniform(4, 1, first=16)]


@pytest.mark.parametrize(("kernel", "threads", "reason"), [
    (Kernel(uniform(6), own=0xFFF, all_=0xFFF), 6, "6 cores with 12 hardware threads"),
    (Kernel(CORE_I7_12700), 8, "8 fast cores of 12 with 20 hardware threads"),
    (Kernel(uniform(6), own=0b11, all_=0xFFF), 1,
     "1 core with 2 hardware threads, the affinity allows 2 of 12 hardware threads"),
    (Kernel(CORE_I7_12700, own=0xF0000, all_=0xFFFFF), 4, "4 cores, the affinity allows 4 of 20 hardware threads"),
    (Kernel(uniform(6), rate=2500), 3, "6 cores with 12 hardware threads, the container allows the time of 3"),
    (Kernel([*uniform(32), *uniform(32, group=1)]), 64, "64 cores with 128 hardware threads"),
    (Kernel([*uniform(32), *uniform(32, group=1)], own=0b1111, all_=2**64 - 1, group=1), 2,
     "2 cores with 4 hardware threads, the affinity allows 4 of 128 hardware threads"),
])  # fmt: skip
def test_windows(kernel: Kernel, threads: int, reason: str) -> None:
    found = windows_processors(kernel)
    assert found is not None
    assert (found.threads, found.reason) == (threads, reason)


def test_windows_that_does_not_tell() -> None:
    assert windows_processors(Kernel([])) is None


def test_records_of_another_kind_are_passed_over() -> None:
    cache = struct.pack("<II", 2, 40) + bytes(32)
    assert list(parsed(record(1, {0: 3}) + cache + record(0, {0: 4}))) == [
        Core(efficiency=1, masks={0: 3}), Core(efficiency=0, masks={0: 4}),
    ]  # fmt: skip
    assert list(parsed(bytes(40))) == [Core(efficiency=0, masks={})]  # a size of nothing ends the list


@pytest.mark.parametrize(("numbers", "threads", "reason"), [
    ({"hw.logicalcpu": 8, "hw.physicalcpu": 8, "hw.perflevel0.physicalcpu": 4}, 4, "4 fast cores of 8"),
    ({"hw.logicalcpu": 8, "hw.physicalcpu": 4}, 4, "4 cores with 8 hardware threads"),
])  # fmt: skip
def test_macos(numbers: dict[str, int], threads: int, reason: str) -> None:
    found = macos_processors(numbers.get)
    assert found is not None
    assert (found.threads, found.reason) == (threads, reason)


def test_macos_that_does_not_tell() -> None:
    assert macos_processors(lambda name: None) is None


def test_sysctl_asks_the_system_for_a_number_of_four_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class System:
        def sysctlbyname(self, name: bytes, value: Any, size: Any, new: None, length: Any) -> int:
            if name != b"hw.physicalcpu" or size._obj.value != 4 or new is not None or length.value:
                return -1
            value._obj.value = 10
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: System())
    assert sysctl("hw.physicalcpu") == 10
    assert sysctl("hw.perflevel0.physicalcpu") is None

    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert sysctl("hw.physicalcpu") is None
