"""What stays on a device stays there: constants are brought once, outputs are fetched when asked for."""

from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.runners import tensorrt
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.device import CudaArray, CudaDevice
from pocketxl.engine.runners.ort import OrtDevice
from pocketxl.engine.runners.tensorrt import ENGINE_FILE, TensorRTRunner

from ...fixtures.cuda_on_host import SPEC, HostDriver, library


@pytest.fixture
def driver() -> HostDriver:
    return HostDriver()


@pytest.fixture
def runner(driver: HostDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRTRunner:
    device = CudaDevice()
    device.__dict__["driver"] = driver
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: library(driver))
    (tmp_path / ENGINE_FILE).write_bytes(b"engine")
    files = (entry_of(tmp_path, ENGINE_FILE),)
    activation = ActivationModel(terms={"batch*pixels": 2.0})
    entry = ComponentEntry(spec=SPEC, runner="tensorrt", files=files, weight_bytes=6, activation=activation)
    return TensorRTRunner(tmp_path, "base/unet", entry, device)


def rows(count: int, start: float = 0.0) -> np.ndarray:
    return np.arange(start, start + 3 * count, dtype=np.float32).reshape(count, 3)


def test_constants_are_brought_once(runner: TensorRTRunner, driver: HostDriver) -> None:
    constant = rows(2, 10)
    held = runner.hold({"constant": constant})
    assert driver.uploads == [12]  # two rows of three float16
    for step in range(4):
        x = rows(2, step)
        found = runner({"x": x}, held)["sum"]
        np.testing.assert_array_equal(np.asarray(found), x + constant)
        assert np.asarray(found).dtype == np.float32
    assert driver.uploads == [12] * 5  # and x at every step
    held.release()
    held.release()
    runner.release()
    assert not driver.memory, "nothing is left on the device"


def test_outputs_that_are_kept_are_not_copied_until_asked_for(runner: TensorRTRunner, driver: HostDriver) -> None:
    kept = runner({"x": rows(2), "constant": rows(2)}, keep=["sum"])["sum"]
    assert isinstance(kept, CudaArray)
    assert kept.shape == (2, 3)
    assert kept.dtype == np.dtype(np.float32)
    assert not driver.downloads
    copies = len(driver.uploads)
    held = runner.hold({"constant": kept})  # it is there already
    found = runner({"x": rows(2)}, held)["sum"]
    assert len(driver.uploads) == copies + 1
    np.testing.assert_array_equal(np.asarray(found), 3 * rows(2))
    np.testing.assert_array_equal(np.asarray(kept), 2 * rows(2))
    held.release()
    runner.release()
    assert not driver.memory


def test_buffers_grow_and_are_kept(runner: TensorRTRunner, driver: HostDriver) -> None:
    for count in (1, 2, 1):
        found = runner({"x": rows(count), "constant": rows(count)})["sum"]
        np.testing.assert_array_equal(np.asarray(found), 2 * rows(count))
    assert len(driver.memory) == 3


def test_rows_beyond_the_profile_are_refused_with_the_range(runner: TensorRTRunner) -> None:
    with pytest.raises(RequestError, match=r"shape \(3, 3\).*takes \(1, 3\) to \(2, 3\)"):
        runner({"x": rows(3), "constant": rows(3)})


def test_it_asks_for_both_sides_of_guidance_and_plans_for_the_device(runner: TensorRTRunner) -> None:
    assert runner.rows == 2
    footprint = runner.footprint(Sizes(rows=2, tokens=77, steps=1, pixels=100))
    assert (footprint.pool, footprint.weights, footprint.working) == ("device", 6, 400)
    assert runner.device.name == "host memory"


def test_devices_say_what_they_are(driver: HostDriver) -> None:
    device = CudaDevice()
    device.close()  # nothing was opened
    device.__dict__["driver"] = driver
    device.close()
    assert driver.closed
    assert OrtDevice().name
