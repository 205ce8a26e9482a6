"""TensorRT by the same runner: what it lacks of TensorRT for RTX is not asked for. On a stand-in of the library."""

import inspect
import platform
import re
import sys
from importlib import metadata
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError, PocketXLError
from pocketxl.engine.runners import BACK_ENDS, tensorrt
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.runners.tensorrt import FullTensorRTRunner
from pocketxl.engine.runners.tensorrt_library import FULL, RTX, driver_too_old, import_tensorrt

from ...fixtures import tensorrt_full_on_host as stand_in
from ...fixtures.cuda_on_host import HostDriver
from ...fixtures.tensorrt_full_on_host import VERIFIED, FullLibrary
from .conftest import MakeRunner

X = np.ones((2, 3), np.float32)


@pytest.fixture
def library(driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> FullLibrary:
    library = FullLibrary(driver)

    def module(asked: Any) -> Any:
        assert asked is FULL
        return library.module()

    monkeypatch.setattr(tensorrt, "import_tensorrt", module)
    return library


@pytest.fixture
def runner(make_runner: MakeRunner, library: FullLibrary) -> FullTensorRTRunner:
    made = make_runner()
    return FullTensorRTRunner(made._folder, made.name, made._entry, made.device)


def use(runner: FullTensorRTRunner, rows: int = 2) -> None:
    found = runner({"x": X[:rows], "constant": X[:rows]})["sum"]
    np.testing.assert_array_equal(np.asarray(found), 2 * X[:rows])


@pytest.mark.parametrize("kind", VERIFIED)
def test_the_stand_in_has_only_what_the_library_s_bindings_have(kind: str) -> None:
    found = {n: v for n, v in inspect.getmembers_static(getattr(stand_in, kind)) if not n.startswith("_")}
    instance = {"decomposable", "attention"}  # set in __init__
    assert set(found) | (instance & VERIFIED[kind].keys()) == set(VERIFIED[kind])
    for name, value in found.items():
        if inspect.isfunction(value):
            assert tuple(inspect.signature(value).parameters)[1:] == VERIFIED[kind][name], name
        else:
            assert VERIFIED[kind][name] is None


def test_weights_come_and_go_with_the_engine(
    runner: FullTensorRTRunner, library: FullLibrary, driver: HostDriver
) -> None:
    for rows in (1, 2):
        use(runner, rows)
        runner.release()
        assert not driver.memory_now
    assert library.seen == ["deserialize", "context"] * 2
    use(runner)
    use(runner)
    assert library.seen == ["deserialize", "context"] * 3, "it stays open between calls"
    runner.device.close()


def test_the_manifest_s_kind_finds_the_runner() -> None:
    _, device, runner = BACK_ENDS["tensorrt_full"]
    assert getattr(tensorrt, device) is CudaDevice
    assert getattr(tensorrt, runner) is FullTensorRTRunner


def refused(runner: FullTensorRTRunner) -> PocketXLError:
    with pytest.raises(PocketXLError) as caught:
        runner.load()
    assert not runner.loaded
    return caught.value


@pytest.mark.parametrize(
    ("logged", "says"),
    [
        (
            "The engine plan file is not compatible with this version of TensorRT, expecting library version 11.1.0 "
            "got 10.8.0, please rebuild.",
            r"another version of TensorRT than the 11\.1\.0\.106 that is installed; install the version",
        ),
        (
            "The engine plan file is generated on an incompatible device, expecting compute 8.9 got compute 9.0, "
            "please rebuild.",
            r"built on another GPU or system than this host memory, and runs there alone; build it again on this",
        ),
        ("Internal error: no luck\ntoday", r"TensorRT 11\.1\.0\.106 cannot open .*: Internal error: no luck today; up"),
    ],
)
def test_what_it_logs_is_told_with_the_fix(
    runner: FullTensorRTRunner, library: FullLibrary, logged: str, says: str
) -> None:
    library.says = logged
    error = refused(runner)
    assert isinstance(error, IncompatibleError)
    assert re.search(says, str(error)), error
    assert "\n" not in str(error)


def test_too_little_memory_is_said_with_the_figures(runner: FullTensorRTRunner, driver: HostDriver) -> None:
    driver.total = 3
    error = refused(runner)
    assert isinstance(error, MemoryBudgetError)
    assert "has 0.00 GB free; give a smaller --budget" in str(error)


def test_a_call_that_does_not_run_names_the_library(runner: FullTensorRTRunner, library: FullLibrary) -> None:
    use(runner)
    library.runs, library.says = False, "enqueueV3: an illegal instruction"
    with pytest.raises(IncompatibleError, match=r"base/unet: TensorRT could not run the engine: .*illegal instruction"):
        use(runner)


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name in names:
            return "1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)


def test_a_package_for_a_later_cuda_than_the_driver_s_is_told(
    runner: FullTensorRTRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "tensorrt-cu13")
    assert str(refused(runner)) == (
        "tensorrt-cu13 needs an NVIDIA driver that serves CUDA 13, and this one serves 12.9; update the driver, or put "
        "tensorrt-cu12 in its place (pip uninstall tensorrt-cu13; pip install tensorrt-cu12)"
    )


def test_no_package_is_too_new_for_a_driver_that_one_of_them_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt-rtx-cu12", "tensorrt-rtx-cu13")
    assert driver_too_old(RTX, (12, 4)) is None
    assert "update the driver" in str(driver_too_old(RTX, (11, 8)))
    assert "in its place" not in str(driver_too_old(RTX, (11, 8))), "there is none for so old a one"
    installed(monkeypatch)
    assert driver_too_old(RTX, (11, 8)) is None, "it came another way, and says so itself"


@pytest.mark.parametrize(
    ("system", "machine", "says"),
    [
        ("Linux", "x86_64", "pip install -e '.[tensorrt]'"),
        ("Linux", "aarch64", "pip install -e '.[tensorrt]'"),
        ("Darwin", "arm64", "TensorRT is for Linux on x86-64 and ARM and for Windows on x86-64; use another machine"),
    ],
)
def test_a_missing_library_is_told_with_what_helps_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(IncompatibleError) as caught:
        import_tensorrt(FULL)
    assert says in str(caught.value)
