"""What stays on a device stays there: constants are brought once, outputs are fetched when asked for."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError, RequestError
from pocketxl.engine.runners.base import Held, Sizes
from pocketxl.engine.runners.device import CudaArray, CudaDevice
from pocketxl.engine.runners.ort import OrtDevice
from pocketxl.engine.runners.tensorrt import TensorRTRunner

from ...fixtures.cuda_on_host import HostDriver
from ...fixtures.programs import SCRATCH_PER_ROW
from ...fixtures.tensorrt_on_host import Library
from .conftest import MakeRunner


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
    runner.device.close()
    assert driver.closed  # which holds that nothing is left


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
    runner.device.close()


def test_what_crosses_at_every_step_is_float16_and_goes_through_pinned_memory(
    runner: TensorRTRunner, driver: HostDriver
) -> None:
    held = runner.hold({"constant": rows(2)})
    driver.from_pinned = 0
    first = runner({"x": rows(2)}, held)["sum"]
    second = runner({"x": rows(2, 5)}, held)["sum"]
    assert driver.from_pinned == 4  # there and back, twice
    assert driver.uploads[-1] == driver.downloads[-1] == 12
    np.testing.assert_array_equal(np.asarray(first), 2 * rows(2), err_msg="an output is the caller's own")
    np.testing.assert_array_equal(np.asarray(second), rows(2, 5) + rows(2))
    held.release()


def test_nothing_moves_between_the_steps_of_a_loop(runner: TensorRTRunner, library: Library) -> None:
    held = runner.hold({"constant": rows(2)})
    for step in range(5):
        runner({"x": rows(2, step)}, held)
        assert len(library.told) == 6, "two shapes, three addresses, one scratch, once"
    assert len(library.executions) == 5
    assert len(set(library.executions)) == 1, "a captured graph is good for the same shapes, addresses and scratch"
    held.release()


def test_activation_memory_is_what_the_shapes_need(runner: TensorRTRunner, driver: HostDriver) -> None:
    runner({"x": rows(1), "constant": rows(1)})
    assert SCRATCH_PER_ROW in {size for _, size in driver.memory_now.values()}
    driver.total = driver.taken + SCRATCH_PER_ROW + 100  # the small one and the large one would not fit together
    runner({"x": rows(2), "constant": rows(2)})  # it grows
    sizes = [size for _, size in driver.memory_now.values()]
    assert 2 * SCRATCH_PER_ROW in sizes
    assert SCRATCH_PER_ROW not in sizes
    runner({"x": rows(1), "constant": rows(1)})
    assert sorted(sizes) == sorted(size for _, size in driver.memory_now.values()), "what is large enough stays"


def test_one_scratch_serves_all_components_and_goes_with_the_first_that_is_released(
    make_runner: MakeRunner, driver: HostDriver
) -> None:
    first, second = make_runner("base/unet"), make_runner("vae_decoder")

    def scratch() -> list[int]:
        return [size for _, size in driver.memory_now.values() if size >= SCRATCH_PER_ROW]

    for _ in range(2):
        for runner, count in ((first, 1), (second, 2), (first, 1)):
            found = runner({"x": rows(count), "constant": rows(count)})["sum"]
            np.testing.assert_array_equal(np.asarray(found), 2 * rows(count))
        assert scratch() == [2 * SCRATCH_PER_ROW]
        second.release()
        assert scratch() == []
        first({"x": rows(1), "constant": rows(1)})
        assert scratch() == [SCRATCH_PER_ROW]
    first.device.close()


def test_a_scratch_that_does_not_fit_is_a_memory_error_and_the_next_call_runs(
    runner: TensorRTRunner, driver: HostDriver
) -> None:
    runner({"x": rows(1), "constant": rows(1)})
    driver.total = driver.taken + SCRATCH_PER_ROW // 2
    with pytest.raises(MemoryBudgetError):
        runner({"x": rows(2), "constant": rows(2)})
    found = runner({"x": rows(1), "constant": rows(1)})["sum"]
    np.testing.assert_array_equal(np.asarray(found), 2 * rows(1))


def test_rows_beyond_the_profile_are_refused_with_the_range_and_the_next_call_runs(runner: TensorRTRunner) -> None:
    runner({"x": rows(2), "constant": rows(2)})
    with pytest.raises(RequestError, match=r"shape \(3, 3\).*takes \(1, 3\) to \(2, 3\)"):
        runner({"x": rows(3), "constant": rows(3)})
    found = runner({"x": rows(2), "constant": rows(2)})["sum"]
    np.testing.assert_array_equal(np.asarray(found), 2 * rows(2))


def test_a_call_that_fails_leaves_nothing_behind(runner: TensorRTRunner, library: Library) -> None:
    library.runs = False
    with pytest.raises(IncompatibleError):
        runner({"x": rows(2), "constant": rows(2)}, keep=["sum"])
    runner.device.close()  # which holds that nothing is left


def test_it_asks_for_both_sides_of_guidance_and_plans_for_the_device(runner: TensorRTRunner) -> None:
    assert runner.rows == 2
    footprint = runner.footprint(Sizes(rows=2, tokens=77, steps=1, pixels=100))
    assert (footprint.pool, footprint.weights, footprint.working) == ("device", 6, 400)
    assert footprint.scratch
    assert runner.device.name == "host memory"


def test_devices_say_what_they_are_and_have(driver: HostDriver, device: CudaDevice) -> None:
    CudaDevice().close()  # nothing was opened
    driver.memory_of_others = 1000
    assert device.in_use == 1000
    assert device.room == driver.total - 1000 + device.overhead["device"]
    device.empty((500,), np.dtype(np.uint8)).release()
    block = device.empty((500,), np.dtype(np.uint8))
    assert device.in_use == 1500
    assert device.room == driver.total - 1000 + device.overhead["device"], "what was free before we took any"
    block.release()
    device.close()
    assert driver.closed
    assert (OrtDevice().room, OrtDevice().in_use) == (None, None)
    assert OrtDevice().name


def test_a_fork_is_told_to_load_its_own(make_runner: MakeRunner, device: CudaDevice) -> None:
    loaded, fresh = make_runner(), make_runner("vae_decoder")
    loaded.load()
    device._process = os.getpid() + 1  # as it looks in a child
    for refused in (loaded.leave_behind, fresh.load):
        with pytest.raises(IncompatibleError, match="cannot be used across a fork; load the pipeline in the child"):
            refused()


def test_what_nobody_has_any_more_goes_back(runner: TensorRTRunner, driver: HostDriver) -> None:
    kept = runner({"x": rows(2), "constant": rows(2)}, keep=["sum"])
    before = len(driver.memory_now)
    del kept
    assert len(driver.memory_now) == before - 1
    lost = runner({"x": rows(2), "constant": rows(2)}, keep=["sum"])
    runner.device.close()  # which holds that nothing is left
    assert driver.closed
    del lost


def test_threads_take_turns(runner: TensorRTRunner, driver: HostDriver) -> None:
    """A context is current in the threads that have made it so, and no other."""
    held: list[Held] = []

    def elsewhere(work: Callable[[], object]) -> None:
        driver.threads.clear()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()

    elsewhere(runner.load)
    elsewhere(lambda: held.append(runner.hold({"constant": rows(2)})))
    elsewhere(lambda: runner({"x": rows(2)}, held[0]))
    elsewhere(held[0].release)
    elsewhere(runner.release)
    elsewhere(runner.load)
    elsewhere(runner.device.close)
    assert driver.closed
