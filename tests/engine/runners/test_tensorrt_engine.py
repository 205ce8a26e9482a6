"""What happens to weights and compiled kernels between phases and between runs."""

from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.errors import MemoryBudgetError
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.runners.tensorrt import TensorRTRunner

from ...fixtures.cuda_on_host import HostDriver
from ...fixtures.programs import Adding
from ...fixtures.tensorrt_on_host import ICudaEngine, Library
from .conftest import MakeRunner

X = np.ones((2, 3), np.float32)


def use(runner: TensorRTRunner, rows: int = 2) -> None:
    found = runner({"x": X[:rows], "constant": X[:rows]})["sum"]
    np.testing.assert_array_equal(np.asarray(found), 2 * X[:rows])


def test_weights_come_and_go_and_the_rest_of_the_engine_stays(
    runner: TensorRTRunner, library: Library, driver: HostDriver
) -> None:
    for _ in range(3):
        use(runner)
        runner.release()
        assert not runner.loaded
        assert not driver.memory_now
    assert library.seen == [
        "deserialize deferred", "context", "load weights", "unload weights",
        "load weights", "unload weights",
        "load weights", "unload weights",
    ]  # fmt: skip
    runner.device.close()
    assert not any(context() for context in library.contexts), "the library's objects went before the device"


def test_a_loaded_engine_is_let_go_of_when_the_device_closes(
    runner: TensorRTRunner, library: Library, driver: HostDriver
) -> None:
    use(runner)
    runner.device.close()
    assert driver.closed
    assert not runner.loaded
    assert not any(context() for context in library.contexts)


def test_the_same_runner_works_again_after_its_device_was_closed(
    runner: TensorRTRunner, device: CudaDevice, library: Library
) -> None:
    use(runner)
    device.close()
    device.__dict__["driver"] = library.driver = HostDriver()
    use(runner)


@pytest.mark.parametrize(
    ("free", "budget"), [(1 << 20, 1000), (1500, 500)], ids=["everything fits", "the library chooses"]
)
def test_an_engine_for_streaming_keeps_as_much_as_fits(
    make_runner: MakeRunner, library: Library, driver: HostDriver, free: int, budget: int
) -> None:
    library.for_streaming, library.program = True, lambda engine: Adding(weights=1000)
    runner = make_runner()
    driver.total = free
    runner.load()
    assert library.budgets == [budget]
    assert library.seen == ["deserialize deferred", "deserialize", "context"]
    assert [size for _, size in driver.memory_now.values()] == [budget]
    runner.release()
    assert not driver.memory_now
    library.seen.clear()
    runner.load()  # it cannot be without its weights, so it is opened again
    assert library.seen == ["deserialize deferred", "deserialize", "context"]


def test_compiled_kernels_are_kept_between_runs(make_runner: MakeRunner, library: Library, device: CudaDevice) -> None:
    for rows, known in ((1, b"kernels:"), (2, b"kernels: [1]"), (2, b"kernels: [2]")):
        driver = library.driver = HostDriver()
        device.__dict__["driver"] = driver
        runner = make_runner(on=device)
        use(runner, rows)
        runner.release()
        assert library.kernels_taken.pop() == known
        runner._close()
        device.close()


@pytest.mark.parametrize("change", ["card", "driver", "library"])
def test_kernels_of_another_card_driver_or_library_are_not_taken(
    make_runner: MakeRunner, library: Library, driver: HostDriver, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    runner = make_runner()
    use(runner)
    runner.release()
    if change == "card":
        monkeypatch.setattr(driver, "device_name", lambda: "another card")
    elif change == "driver":
        monkeypatch.setattr(driver, "cuda_version", lambda: (13, 0))
    else:
        module = library.module()
        module.__version__ = "1.8.0"
        monkeypatch.setattr("pocketxl.engine.runners.tensorrt.import_tensorrt", lambda *_: module)
    make_runner().load()
    assert library.kernels_taken == [b"kernels:", b"kernels:"]


def test_a_full_card_is_said_before_anything_runs(make_runner: MakeRunner, driver: HostDriver) -> None:
    driver.total = 3
    runner = make_runner()
    with pytest.raises(MemoryBudgetError, match=r"needs 0\.00 GB of GPU memory for its weights.*--budget"):
        runner.load()
    assert not runner.loaded
    assert not driver.memory_now
    driver.total = 1 << 20
    use(runner)  # once there is room


@pytest.mark.parametrize("method", ["create_execution_context", "load_weights", "get_tensor_dtype"])
def test_ctrl_c_while_loading_leaves_nothing_and_the_next_call_loads_again(
    make_runner: MakeRunner, driver: HostDriver, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    runner = make_runner()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ICudaEngine, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.load()
    assert not runner.loaded
    assert not driver.memory_now
    use(runner)


def test_a_program_that_ends_without_closing_has_kept_what_was_compiled_by_then(
    make_runner: MakeRunner, library: Library, tmp_path: Path
) -> None:
    make_runner().load()
    assert len(list(tmp_path.rglob("*.kernels"))) == 1
