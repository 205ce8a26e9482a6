"""An engine that adds, on a GPU that is host memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.runners import tensorrt
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.runners.tensorrt import ENGINE_FILE, TensorRTRunner

from ...fixtures.cuda_on_host import HostDriver
from ...fixtures.programs import SPEC
from ...fixtures.tensorrt_on_host import Library

MakeRunner = Callable[..., TensorRTRunner]


@pytest.fixture
def driver() -> HostDriver:
    return HostDriver()


@pytest.fixture
def library(driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library(driver)
    monkeypatch.setattr(tensorrt, "import_tensorrt", library.module)
    return library


@pytest.fixture
def device(driver: HostDriver) -> CudaDevice:
    device = CudaDevice()
    device.__dict__["driver"] = driver
    return device


@pytest.fixture
def make_runner(device: CudaDevice, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRunner:
    """A runner of its own engine file; all of them share the device and the library."""
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))

    def make(name: str = "base/unet", *, on: CudaDevice = device, weights: int = 6) -> TensorRTRunner:
        folder = tmp_path / "engine"
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / ENGINE_FILE).write_bytes(name.encode())
        entry = ComponentEntry(
            spec=SPEC,
            runner="tensorrt",
            files=(entry_of(folder, f"{name}/{ENGINE_FILE}"),),
            weight_bytes=weights,
            activation=ActivationModel(terms={"batch*pixels": 2.0}),
        )
        return TensorRTRunner(folder, name, entry, on)

    return make


@pytest.fixture
def runner(make_runner: MakeRunner) -> TensorRTRunner:
    return make_runner()
