"""The machine as the system tells it, with a GPU and without."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.doctor import machine
from pocketxl.engine.doctor.machine import Gpu, gpu, host

from ...fixtures.cuda_library import CudaLibrary


class Management:
    """NVIDIA's management library."""

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, length: ctypes.c_uint) -> int:  # noqa: N802
        assert length.value == len(text) >= 80
        text.value = b"580.65.06"
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> CudaLibrary:
    library = CudaLibrary()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Management() if "ml" in name else library)
    return library


def test_a_card_is_told_with_its_target_and_given_back(library: CudaLibrary) -> None:
    library.host.memory_of_others = 1 << 20
    found = gpu()
    assert found == Gpu(
        name="NVIDIA GeForce RTX 4060", compute_capability="8.9", memory_bytes=library.host.total,
        free_bytes=library.host.total - (1 << 20), driver="580.65.06", cuda="12.9",
    )  # fmt: skip
    assert isinstance(found, Gpu)
    assert found.target == "rtx-sm89"
    assert library.calls[-1] == "cuDevicePrimaryCtxRelease_v2"


def test_without_a_driver_or_card_a_sentence_says_why(
    library: CudaLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_plugged_in", lambda: False)
    library.fails["cuInit"] = 100
    assert "the driver sees no NVIDIA GPU" in str(gpu())

    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "install the driver" in str(gpu())
    monkeypatch.setattr(machine, "_plugged_in", lambda: True)
    assert str(gpu()).startswith("an NVIDIA GPU is plugged in, but cannot be used: ")


def test_a_driver_without_its_management_library_has_no_version(
    library: CudaLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_driver_version", lambda: "")
    found = gpu()
    assert isinstance(found, Gpu)
    assert found.driver == ""


@pytest.mark.parametrize(("vendor", "kind", "found"), [
    ("0x10de", "0x030000", True), ("0x10de", "0x040300", False), ("0x1002", "0x030000", False),
])  # fmt: skip
def test_a_card_without_a_driver_is_seen_on_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, kind: str, found: bool
) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "0000:01:00.0" / "class").write_text(f"{kind}\n")
    (tmp_path / "0000:02:00.0").mkdir()  # says nothing
    monkeypatch.setattr(machine, "_BUS", tmp_path)
    assert machine._plugged_in() is found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux tells")
def test_the_host_is_what_the_system_says() -> None:
    psutil = pytest.importorskip("psutil")
    found = host()
    assert found.memory_bytes is not None
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.free_bytes is not None
    assert 0 <= found.free_bytes <= found.memory_bytes
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.processor


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        ("max", "5", (1000 << 10, 600 << 10)),
        ("102400", "2400", (102400, 100000)),
        ("999999999", "5", (1000 << 10, 600 << 10)),
    ],
)
def test_a_container_s_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str, expected: tuple[int, int]
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    600 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CONTAINER", tmp_path)
    assert machine._memory() == expected


def test_windows_is_asked_as_its_reference_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ctypes.sizeof(machine._MemoryStatus) == 64  # as documented for MEMORYSTATUSEX

    class Kernel:
        def GlobalMemoryStatusEx(self, status: Any) -> int:  # noqa: N802
            assert status._obj.dwLength == 64
            status._obj.ullTotalPhys, status._obj.ullAvailPhys = 16 << 30, 9 << 30
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Kernel())
    assert machine._windows_memory() == (16 << 30, 9 << 30)
