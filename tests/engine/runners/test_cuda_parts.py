"""The parts of the runner for programs: weights on their way, graphs that are kept, memory that is held."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners import cuda_weights, open_runners
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.engine.runners.cuda_graphs import MOST, Graphs
from pocketxl.engine.runners.cuda_held import MOST_SPARE, HeldPool, HeldValues, Places
from pocketxl.engine.runners.cuda_weights import upload_file
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.runners.ort import OrtRunner
from pocketxl.engine.runners.ort_providers import HALF as HALF_FORMAT

from ...fixtures.cuda_programs import ProgramDriver, driver_of, fake_device
from ...fixtures.small_programs import SPEC

HALF = np.dtype(np.float16)


@pytest.fixture
def device() -> Iterator[CudaDevice]:
    device = fake_device()
    device.driver.enter()
    yield device
    device.close()


@pytest.fixture
def driver(device: CudaDevice) -> ProgramDriver:
    return driver_of(device)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 3456])
def test_weights_arrive_whole_in_pieces(
    device: CudaDevice, driver: ProgramDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(cuda_weights, "PIECE", 1000)
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    (tmp_path / "weights.bin").write_bytes(content.tobytes())
    made = upload_file(device, tmp_path / "weights.bin")
    np.testing.assert_array_equal(np.asarray(made), content)
    assert max(driver.uploads, default=0) <= 1000
    assert driver.from_pinned == len(driver.uploads)
    assert not driver.pinned
    made.release()


@pytest.mark.parametrize("call", ["upload", "synchronize"])
def test_weights_that_do_not_arrive_leave_nothing(
    device: CudaDevice, driver: ProgramDriver, tmp_path: Path, call: str
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"weights")
    driver.fails[call] = IncompatibleError("lost")
    with pytest.raises(IncompatibleError, match="lost"):
        upload_file(device, tmp_path / "weights.bin")
    driver.fails.clear()
    assert not driver.memory_now
    assert not driver.pinned


def test_the_graphs_used_last_are_kept(device: CudaDevice, driver: ProgramDriver) -> None:
    graphs = Graphs(device.driver)
    made = {key: graphs.add(key, lambda: None) for key in range(MOST)}
    assert graphs.get(0) == made[0]
    graphs.add(MOST, lambda: None)
    assert graphs.get(1) is None
    assert graphs.get(0) == made[0]
    assert len(driver.graphs) == MOST
    graphs.release()
    assert graphs.get(0) is None


def test_a_graph_that_could_not_be_made_is_not_kept(device: CudaDevice, driver: ProgramDriver) -> None:
    graphs = Graphs(device.driver)
    driver.fails["instantiate"] = MemoryBudgetError("full")
    with pytest.raises(MemoryBudgetError):
        graphs.add(0, lambda: None)
    assert graphs.get(0) is None


def test_the_next_picture_gets_the_memory_of_the_last(device: CudaDevice, driver: ProgramDriver) -> None:
    pool = HeldPool(device)
    addresses = set()
    for _ in range(3):
        for rows in (1, 2):
            held = HeldValues(pool, SPEC, (), {})
            held.add("key", (rows, 8), HALF)
            addresses.add(held.places)
            held.release()
    assert len(addresses) == 2
    assert len(driver.memory_now) == MOST_SPARE
    pool.release()
    assert not driver.memory_now


def test_places_are_equal_where_the_addresses_are(device: CudaDevice) -> None:
    pool = HeldPool(device)
    held = HeldValues(pool, SPEC, (), {})
    empty = held.places
    one = held.add("key", (1, 8), HALF)
    assert held.places != empty
    assert held.places is held.places
    assert (held.places, hash(held.places)) == (Places([("key", one.address)]), hash(Places([("key", one.address)])))
    assert held.places != Places([("key", one.address + 1)])
    assert held.places.names == {"key"}
    held.release()
    assert held.places == empty
    pool.release()


def test_sizes_that_no_picture_has_any_more_are_given_up(device: CudaDevice, driver: ProgramDriver) -> None:
    pool = HeldPool(device)
    for rows in range(1, 6):
        held = HeldValues(pool, SPEC, (), {})
        held.add("key", (rows, 8), HALF)
        held.release()
    assert sorted(size for _, size in driver.memory_now.values()) == [4 * 8 * 2, 5 * 8 * 2]
    pool.release()


def test_what_is_held_when_its_runner_goes_is_freed_when_it_is_let_go(
    device: CudaDevice, driver: ProgramDriver
) -> None:
    pool = HeldPool(device)
    held = HeldValues(pool, SPEC, (), {})
    held.add("key", (1, 8), HALF)
    pool.release()
    assert len(driver.memory_now) == 1
    held.release()
    assert not driver.memory_now


def test_an_engine_may_run_its_u_nets_here_and_the_rest_in_onnx_runtime() -> None:
    manifest = read_manifest(FOLDER)
    components = {
        name: replace(entry, runner="cuda", formats={"w8a8_kernels": ()}) if "unet" in name else entry
        for name, entry in manifest.components.items()
    }
    mixed = replace(manifest, target="cuda", components=components)
    runners = open_runners(FOLDER, mixed, provider="cpu")
    assert {name for name, runner in runners.items() if isinstance(runner, CudaRunner)} == {"base/unet", "refiner/unet"}
    assert len({id(runner.device) for runner in runners.values()}) == 2
    for runner in runners.values():
        assert not runner.loaded


def test_the_provider_follows_from_what_onnx_runtime_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    here = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("pocketxl.engine.runners.ort_providers._available", lambda: here)
    manifest = read_manifest(FOLDER)
    components = {
        name: replace(entry, runner="cuda") if "unet" in name else replace(entry, formats={HALF_FORMAT: ("a",)})
        for name, entry in manifest.components.items()
    }  # the U-Nets' own format would keep all on the processor
    runners = open_runners(FOLDER, replace(manifest, components=components))
    assert {runner.device.provider.name for runner in runners.values() if isinstance(runner, OrtRunner)} == {"cuda"}
