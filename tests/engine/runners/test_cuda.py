"""A small network through the whole runtime, on its kernels' own sources: what is computed, and where it lies."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, IntegrityError, MemoryBudgetError, RequestError
from pocketxl.engine.program.launches import PORTABLE
from pocketxl.engine.program.program import Program
from pocketxl.engine.program.read import PROGRAM_FILE, WEIGHTS_FILE
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.runners.base import Sizes as PlanSizes
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.specs import ComponentSpec
from pocketxl.kernels.architecture import architecture

from ...fixtures.cuda_programs import ProgramDriver, binaries_of, driver_of, fake_device, install, lost, poison_the_dead
from ...fixtures.small_programs import (
    SPEC,
    brief_program,
    executed,
    inputs_at,
    small_program,
    truth,
    variants,
    write_component,
)
from ...tolerances import SMALL_PROGRAM_RELATIVE

ARCH = architecture(89)
ONE = Sizes(batch=1, height=4, width=6, tokens=77)
TWO = Sizes(batch=2, height=5, width=3, tokens=77)
PROGRAM, WEIGHTS = brief_program()
WHOLE, WHOLE_WEIGHTS = small_program()
SPECS, CONTENT = binaries_of(dict.fromkeys(v for p in (PROGRAM, WHOLE) for v in variants(p, [ONE, TWO], ARCH)))
HELD = ("key_values.0.key", "key_values.0.value")
Make = Callable[..., CudaRunner]


@pytest.fixture
def device() -> CudaDevice:
    return fake_device()


@pytest.fixture
def driver(device: CudaDevice) -> ProgramDriver:
    return driver_of(device)


@pytest.fixture
def make(device: CudaDevice, tmp_path: Path) -> Iterator[Make]:
    """A runner of its own component folder on the device, which is closed at the end: there nothing may be left."""

    def maker(
        program: Program = PROGRAM,
        weights: dict[str, np.ndarray] = WEIGHTS,
        *,
        name: str = "base/unet",
        sm: str = "89",
        specs: Any = SPECS,
        spec: ComponentSpec = SPEC,
    ) -> CudaRunner:
        entry = write_component(tmp_path, name, program, weights, {sm: specs}, CONTENT, spec=spec)
        return CudaRunner(tmp_path, name, entry, device)

    yield maker
    device.close()
    assert not device.__dict__.get("driver")


@pytest.fixture
def runner(make: Make, monkeypatch: pytest.MonkeyPatch) -> CudaRunner:
    poison_the_dead(monkeypatch)
    return make()


@cache
def wanted(sizes: Sizes, seed: int) -> np.ndarray:
    return executed(PROGRAM, WEIGHTS, inputs_at(sizes, seed), sizes, ARCH)


def run(runner: CudaRunner, sizes: Sizes, seed: int = 0) -> None:
    """Call it, and hold the outcome to the bit."""
    found = np.asarray(runner(inputs_at(sizes, seed))["prediction"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted(sizes, seed))


def split(sizes: Sizes, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What changes at every step, and what is held."""
    inputs = inputs_at(sizes, seed)
    return {n: a for n, a in inputs.items() if n not in HELD}, {n: inputs[n] for n in HELD}


@pytest.mark.parametrize("sizes", [ONE, TWO], ids=["one", "two"])
def test_a_network_gives_what_its_kernels_do_in_memory_of_their_own(
    make: Make, monkeypatch: pytest.MonkeyPatch, sizes: Sizes
) -> None:
    poison_the_dead(monkeypatch)
    inputs = inputs_at(sizes)
    found = np.asarray(make(WHOLE, WHOLE_WEIGHTS)(inputs)["prediction"])
    np.testing.assert_array_equal(found, executed(WHOLE, WHOLE_WEIGHTS, inputs, sizes, ARCH))
    expected = truth(WHOLE, WHOLE_WEIGHTS, inputs, sizes)
    assert np.linalg.norm(found - expected) <= SMALL_PROGRAM_RELATIVE * np.linalg.norm(expected)


def test_graphs_are_captured_once_for_a_size_and_see_new_inputs(runner: CudaRunner, driver: ProgramDriver) -> None:
    for sizes, seed in ((ONE, 0), (ONE, 1), (TWO, 0), (ONE, 0)):
        run(runner, sizes, seed)
    assert driver.captures == 3  # TWO needs more scratch, which moves, and ONE lies in it from then on
    assert driver.replays == 4
    assert driver.poisoned
    run(runner, TWO, 0)
    assert driver.captures == 3


def test_what_is_held_is_brought_once_and_graphs_outlive_the_picture(runner: CudaRunner, driver: ProgramDriver) -> None:
    for seed in (0, 1):
        changing, constant = split(ONE, seed)
        held = runner.hold(constant)
        uploads = len(driver.uploads)
        for _ in range(2):
            np.testing.assert_array_equal(runner(changing, held)["prediction"], wanted(ONE, seed))
        assert len(driver.uploads) == uploads + 2  # latents and time vectors lie together
        held.release()
        held.release()
    assert driver.captures == 1


def test_what_two_pictures_hold_at_once_lies_apart(runner: CudaRunner) -> None:
    (changing, first), (others, second) = split(ONE, 0), split(ONE, 1)
    mine, theirs = runner.hold(first), runner.hold(second)
    np.testing.assert_array_equal(runner(changing, mine)["prediction"], wanted(ONE, 0))
    np.testing.assert_array_equal(runner(others, theirs)["prediction"], wanted(ONE, 1))
    mine.release()
    runner.release()
    theirs.release()  # after its runner: it frees what it had


def test_what_was_released_is_missed(runner: CudaRunner) -> None:
    changing, constant = split(ONE)
    held = runner.hold(constant)
    held.release()
    with pytest.raises(RequestError, match="missing inputs"):
        runner(changing, held)


def test_only_inputs_that_there_are_can_be_held(runner: CudaRunner) -> None:
    with pytest.raises(RequestError, match=r"there is no input key; there are latents, time_vectors"):
        runner.hold({"key": np.zeros((1, 77, 64), np.float32)})
    with pytest.raises(RequestError, match="must be"):
        runner.hold({HELD[0]: np.zeros((1, 77, 65), np.float32)})


def test_what_is_held_is_checked_when_it_is_and_what_is_given_has_to_agree(runner: CudaRunner) -> None:
    changing, constant = split(ONE)
    longer = {HELD[0]: constant[HELD[0]], HELD[1]: np.zeros((1, 154, 64), np.float32)}
    with pytest.raises(RequestError, match=r"key_values\.0\.value has shape \(1, 154, 64\).* with .*'tokens': 77"):
        runner.hold(longer)
    with pytest.raises(RequestError, match=r"key_values\.0\.key is float64, it must be float32"):
        runner.hold({HELD[0]: constant[HELD[0]].astype(np.float64)})
    held = runner.hold(constant)
    with pytest.raises(RequestError, match=r"latents has shape \(2, 4, 5, 3\).* with .*'batch': 1"):
        runner(split(TWO)[0], held)
    with pytest.raises(RequestError, match=r"latents is float16, it must be float32"):
        runner({**changing, "latents": changing["latents"].astype(np.float16)}, held)
    with pytest.raises(RequestError, match=r"missing inputs \['time_vectors'\], unknown inputs \[\]"):
        runner({"latents": changing["latents"]}, held)
    with pytest.raises(RequestError, match=r"missing inputs \[\], unknown inputs \['key_values\.0\.key'\]"):
        runner({**changing, HELD[0]: constant[HELD[0]]}, held)
    np.testing.assert_array_equal(runner(changing, held)["prediction"], wanted(ONE, 0))


def test_a_call_waits_once_and_the_one_after_a_failure_first_for_what_that_left(
    runner: CudaRunner, driver: ProgramDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(runner, ONE)
    waits = driver.waits
    run(runner, ONE, 1)
    assert driver.waits == waits + 1
    with monkeypatch.context() as patch:
        patch.setattr(driver, "replay", raising)
        with pytest.raises(KeyboardInterrupt):  # its copies are still under way
            run(runner, ONE)
    assert driver.waits == waits + 1
    run(runner, ONE, 1)
    assert driver.waits == waits + 1 + 2


def raising(graph: int) -> None:
    raise KeyboardInterrupt


def test_memory_for_sizes_that_were_not_used_for_long_is_given_back(
    runner: CudaRunner, driver: ProgramDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketxl.engine.runners.cuda_program.MOST_PREPARED", 1)
    for sizes in (ONE, TWO, ONE):
        run(runner, sizes)
        assert len(driver.pinned) == 1


def test_inputs_cross_in_pinned_memory_that_stays(runner: CudaRunner, driver: ProgramDriver) -> None:
    run(runner, ONE)
    pinned, copies = set(driver.pinned), driver.from_pinned
    run(runner, ONE, 1)
    assert set(driver.pinned) == pinned
    assert driver.from_pinned == copies + 1 + 1  # all inputs, and the output


def test_scratch_that_moved_is_captured_anew(runner: CudaRunner, device: CudaDevice, driver: ProgramDriver) -> None:
    run(runner, ONE)
    device.drop_scratch()
    keep = device.empty((100_000,), np.dtype(np.uint8))  # where it lay there is something else now
    run(runner, ONE)
    keep.release()
    device.scratch(1 << 20)  # another component needs more
    run(runner, ONE)
    assert driver.captures >= 2


def test_it_comes_and_goes(runner: CudaRunner, driver: ProgramDriver) -> None:
    seen = [runner.loaded]
    for _ in range(2):
        runner.load()
        seen.append(runner.loaded)
        run(runner, ONE)
        runner.release()
        runner.release()
        seen.append(runner.loaded)
        assert not driver.memory_now
        assert not driver.pinned
        assert not driver.modules
        assert not driver.graphs
    assert seen == [False, True, False, True, False]


def test_memory_is_what_the_plan_says(runner: CudaRunner, driver: ProgramDriver) -> None:
    sizes = PlanSizes(rows=2, tokens=77, steps=30, pixels=1000)
    footprint = runner.footprint(sizes)
    assert (footprint.pool, footprint.working, footprint.scratch) == ("device", 16_000, True)
    runner.load()
    (weights,) = (size for _, size in driver.memory_now.values())
    assert weights <= footprint.weights  # its files beside that are the program and the kernels
    runner.release()


@pytest.mark.parametrize("loaded", [False, True], ids=["for the weights", "for the arena"])
def test_a_full_card_is_told_and_nothing_is_lost(runner: CudaRunner, driver: ProgramDriver, loaded: bool) -> None:
    if loaded:
        runner.load()
    total, driver.total = driver.total, driver.taken + 1000
    with pytest.raises(MemoryBudgetError):
        run(runner, TWO)
    driver.total = total
    run(runner, TWO)
    runner.release()
    assert not driver.memory_now


@pytest.mark.parametrize("call", ["capture", "instantiate", "launch", "load_module"])
def test_what_fails_while_a_graph_is_made_can_be_tried_again(
    runner: CudaRunner, driver: ProgramDriver, call: str
) -> None:
    driver.fails[call] = MemoryBudgetError("the GPU is out of memory")
    with pytest.raises(MemoryBudgetError):
        run(runner, ONE)
    driver.fails.clear()
    run(runner, ONE)


def test_memory_that_is_short_while_inputs_are_held_is_given_back(runner: CudaRunner, driver: ProgramDriver) -> None:
    runner.load()
    taken = driver.taken
    driver.total = taken + 12_000  # room for keys, none for values
    with pytest.raises(MemoryBudgetError):
        runner.hold(split(ONE)[1])
    runner.release()
    assert not driver.memory_now
    driver.total = 1 << 30


def test_a_lost_gpu_is_told_and_the_runner_is_not_loaded_afterwards(runner: CudaRunner, driver: ProgramDriver) -> None:
    run(runner, ONE)
    driver.fails["synchronize"] = lost()
    with pytest.raises(IncompatibleError, match="700"):
        run(runner, ONE)
    with pytest.raises(IncompatibleError, match="700"):
        runner.release()
    assert not runner.loaded
    runner.device.__dict__.pop("driver")  # nothing of it can be given back
    runner.device.close()


def test_files_are_looked_at_before_anything_reaches_the_gpu(runner: CudaRunner, driver: ProgramDriver) -> None:
    path = runner._folder / "base/unet" / WEIGHTS_FILE
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(IntegrityError, match=WEIGHTS_FILE):
        runner.load()
    assert not driver.memory_now


@pytest.mark.parametrize(("there", "gpu"), [("90", "8.9"), ("86", "8.9")], ids=["other", "older"])
def test_kernels_for_other_gpus(make: Make, driver: ProgramDriver, there: str, gpu: str) -> None:
    runner = make(sm=there)
    if there == "86":  # whose binaries it can run
        runner.load()
        return
    with pytest.raises(IncompatibleError, match=rf"capability 9\.0, and this host memory has {gpu}"):
        runner.load()
    assert not driver.memory_now


def test_a_kernel_that_is_not_there(make: Make) -> None:
    runner = make(specs=dict(list(SPECS.items())[1:]))
    with pytest.raises(IncompatibleError, match="made by another release's tables"):
        run(runner, ONE)


def test_a_program_of_another_component(make: Make) -> None:
    other = ComponentSpec(role=SPEC.role, inputs=SPEC.inputs[:-1], outputs=SPEC.outputs)
    with pytest.raises(IncompatibleError, match=rf"{PROGRAM_FILE} has the inputs .*its component has"):
        make(spec=other).load()


def test_a_size_that_a_kernel_does_not_take_is_a_wrong_request(runner: CudaRunner) -> None:
    inputs = inputs_at(ONE)
    inputs["latents"] = np.zeros((1, 4, 0, 6), np.float32)
    with pytest.raises(RequestError, match=r"layer\.0: read_pixels cannot take.*choose another size"):
        runner(inputs)


def test_two_components_share_a_device(make: Make, monkeypatch: pytest.MonkeyPatch, driver: ProgramDriver) -> None:
    poison_the_dead(monkeypatch)
    base, refiner = make(), make(name="refiner/unet")
    for runner in (base, refiner, base):
        run(runner, ONE)
    base.release()
    run(refiner, ONE)
    refiner.release()


def test_a_later_gpu_has_its_driver_compile_the_portable_kernels(tmp_path: Path) -> None:
    old = architecture(PORTABLE)
    specs, content = binaries_of(variants(PROGRAM, [ONE], old))
    packed, text = b"", {}
    for name, spec in specs.items():
        one = zlib.compress(content[spec.offset : spec.offset + spec.size])
        text[name] = replace(spec, offset=len(packed), size=len(one))
        packed += one
    program = replace(PROGRAM, portable=text)
    entry = write_component(tmp_path, "base/unet", program, WEIGHTS, {}, packed)
    runner = CudaRunner(tmp_path, "base/unet", entry, fake_device(capability=(10, 0)))
    found = np.asarray(runner(inputs_at(ONE))["prediction"])
    np.testing.assert_array_equal(found, executed(PROGRAM, WEIGHTS, inputs_at(ONE), ONE, old))
    runner.device.close()


def test_its_device_opens_the_gpu_when_it_is_first_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = install(ProgramDriver(), monkeypatch)
    entry = write_component(tmp_path, "base/unet", PROGRAM, WEIGHTS, {"89": SPECS}, CONTENT)
    runner = CudaRunner(tmp_path, "base/unet", entry, CudaDevice())
    assert not driver.threads
    run(runner, ONE)
    runner.device.close()
    assert driver.closed
    assert not runner.loaded


def test_across_a_fork_it_refuses(runner: CudaRunner) -> None:
    with pytest.raises(IncompatibleError, match="cannot be used across a fork"):
        runner.leave_behind()
    runner.device.driver  # noqa: B018 - opened, by a process of another number
    runner.device._process = 1
    with pytest.raises(IncompatibleError, match="cannot be used across a fork"):
        runner.load()
