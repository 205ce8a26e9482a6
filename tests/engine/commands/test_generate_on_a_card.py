"""What somebody meets who makes a picture with an engine for a card: a picture, or one line with the fix.

`check` meets the same, since it opens an engine likewise.
"""

import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pocketxl.engine.runners import device, tensorrt

from ...fixtures.command_line import Shown, run
from ...fixtures.cuda_library import CudaLibrary
from ...fixtures.cuda_on_host import HostDriver
from ...fixtures.rtx_on_host import install, rtx_engine
from ...fixtures.tensorrt_on_host import EngineInvalidityDiagnostics, Library


@pytest.fixture(scope="session")
def folder(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rtx_engine(tiny_engine, tmp_path_factory.mktemp("rtx"))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return install(HostDriver(total=8 << 30), monkeypatch)


def generate(capsys: pytest.CaptureFixture[str], folder: Path, out: Path) -> Shown:
    options = ("--steps", "2", "--width", "64", "--height", "64", "--seed", "1", "--quiet")
    return run(capsys, "generate", "a cat", "--engine", folder, "-o", out / "cat.png", *options)


def test_a_picture(folder: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(capsys, folder, tmp_path).status == 0
    assert (tmp_path / "cat.png").stat().st_size > 0
    assert library.driver.closed  # which holds that nothing is left on the card


@pytest.mark.parametrize(
    ("diagnosis", "says"),
    [
        ("VERSION_MISMATCH", "install the version"),
        ("UNSUPPORTED_CC", "--target rtx-sm89"),
        ("OLD_CUDA_DRIVER", "update"),
    ],
)
def test_another_card_library_or_driver(
    folder: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str], diagnosis: str, says: str
) -> None:
    library.diagnostics = EngineInvalidityDiagnostics[diagnosis]
    shown = generate(capsys, folder, tmp_path)
    assert (shown.status, says in shown.complaint()) == (3, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("total", [1 << 20, 12 << 20], ids=["no room for weights", "no room to run"])
def test_too_little_memory(
    folder: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str], total: int
) -> None:
    library.driver.total = total
    shown = generate(capsys, folder, tmp_path)
    assert (shown.status, re.search("memory", shown.complaint()) is not None) == (4, True)
    assert not library.driver.memory_now


def test_no_driver_and_no_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Library(HostDriver())
    monkeypatch.setattr(tensorrt, "import_tensorrt", stand_in.module)

    monkeypatch.setattr("pocketxl.engine.runners.cuda_driver._library", CudaLibrary)
    monkeypatch.setattr(CudaLibrary, "cuInit", lambda *_: 100, raising=False)
    shown = generate(capsys, folder, tmp_path)
    assert (shown.status, "sees no NVIDIA GPU" in shown.complaint()) == (3, True)
    assert device.CudaDevice().name == ""


def test_no_library(
    folder: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    shown = generate(capsys, folder, tmp_path)
    assert (shown.status, "pip install -e '.[rtx]'" in shown.complaint()) == (3, True)


def test_a_library_that_is_not_for_this_machine(
    folder: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    shown = generate(capsys, folder, tmp_path)
    assert shown.status == 3
    assert "TensorRT for RTX is for Linux and Windows on x86-64; use another machine" in shown.complaint()


@pytest.mark.parametrize("command", ["generate", "check"])
def test_a_library_for_a_later_cuda_than_the_driver_s(
    folder: Path,
    library: Library,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    def version(name: str) -> str:
        if name in ("pocketxl", "tensorrt-rtx-cu13"):
            return "1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    shown = generate(capsys, folder, tmp_path) if command == "generate" else run(capsys, "check", folder)
    assert shown.status == 3
    assert "tensorrt-rtx-cu13 needs an NVIDIA driver that serves CUDA 13, and this one serves 12.9" in shown.complaint()
    assert "pip install tensorrt-rtx-cu12" in shown.complaint()
    assert not library.driver.memory_now


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        ("cuInit", 35, "the NVIDIA driver is too old; update it"),
        ("cuInit", 803, "the driver was updated while the machine ran; start the machine again"),
        ("cuInit", 999, "the driver cannot start; start the machine again"),
        ("cuDevicePrimaryCtxRetain", 46, "another process has the GPU for itself"),
        ("cuDevicePrimaryCtxRetain", 2, "the GPU is out of memory"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "check"])
def test_a_driver_or_card_that_does_not_start(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    call: str,
    status: int,
    says: str,
) -> None:
    cuda = CudaLibrary()
    cuda.fails[call] = status
    monkeypatch.setattr(tensorrt, "import_tensorrt", Library(HostDriver()).module)
    monkeypatch.setattr("pocketxl.engine.runners.cuda_driver._library", lambda: cuda)
    shown = generate(capsys, folder, tmp_path) if command == "generate" else run(capsys, "check", folder)
    assert shown.status == (4 if status == 2 else 3)
    assert says in shown.complaint()


def test_an_old_driver_that_lacks_a_call(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = CudaLibrary()
    cuda.lacks.add("cuDevicePrimaryCtxRetain")
    monkeypatch.setattr("pocketxl.engine.runners.cuda_driver._library", lambda: cuda)
    shown = generate(capsys, folder, tmp_path)
    assert (shown.status, "is too old; update it" in shown.complaint()) == (3, True)


def test_what_it_would_take_is_told_without_a_card(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaLibrary, "cuInit", lambda *_: 100, raising=False)
    monkeypatch.setattr("pocketxl.engine.runners.cuda_driver._library", CudaLibrary)
    assert run(capsys, "plan", folder).status == 0
