"""LoRAs on a program of our own kernels, through the whole runtime, on the kernels' own sources."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.activation import ActivationModel
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.openings import OpenGraph, Openings, pair_inputs
from pocketxl.engine.program.program import Program
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.program.slots import RANKS, SLOTS_FILE, Slot, opened, slots_text
from pocketxl.engine.runners.adapted import Adapted, Opens, graph_for
from pocketxl.engine.runners.base import Sizes as PlanSizes
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.engine.runners.cuda_open import CudaOpenRunner
from pocketxl.engine.runners.cuda_slots import slot_arrays
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.export.quantize.formats import W8A8_PICTURE, W8A8_TOKEN
from pocketxl.export.targets.cuda.slots import slots_of
from pocketxl.export.targets.cuda.stored import Part, Weight
from pocketxl.kernels.architecture import architecture

from ...fixtures.cuda_programs import ProgramDriver, binaries_of, driver_of, fake_device, poison_the_dead
from ...fixtures.small_programs import brief_program, executed, inputs_at, small_program, variants, write_component

ARCH = architecture(89)
ONE = Sizes(batch=1, height=4, width=6, tokens=77, rank=RANKS[0])
HELD = ("key_values.0.key", "key_values.0.value")
Shapes = Mapping[str, tuple[int, ...]]
Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]


def slots_and_shapes(program: Program, weights: Mapping[str, np.ndarray]) -> tuple[tuple[Slot, ...], Shapes]:
    """Every layer by its own name; the picture that two stand side by side in has their channels in turn."""
    stored, shapes = {}, {}
    for call in program.calls:
        if "weight_scale" not in call.inputs:
            continue
        key = call.inputs["weight"].name
        layer, shape = key.removesuffix(".weight"), weights[key].shape
        picture = len(shape) == 4
        columns = (int(str(call.shape["c"])), int(str(call.shape.get("c2", 0)))) if picture else (0, 0)
        format = W8A8_PICTURE if picture else W8A8_TOKEN
        weight = Weight(layers=(layer,), format=format, picture=picture, columns=columns)
        stored[key] = Part(weight=weight, part="numbers")
        shapes[layer] = (shape[0], shape[3], *shape[1:3]) if picture else shape
    return tuple(slots_of(program.calls, stored)), shapes


PROGRAM, WEIGHTS = brief_program()
SLOTS, SHAPES = slots_and_shapes(PROGRAM, WEIGHTS)
WHOLE, WHOLE_WEIGHTS = small_program()
WHOLE_SLOTS, WHOLE_SHAPES = slots_and_shapes(WHOLE, WHOLE_WEIGHTS)


def layers_of(slots: tuple[Slot, ...]) -> list[str]:
    return [layer for slot in slots for layer in slot.layers]


SPECS, CONTENT = binaries_of(
    dict.fromkeys(
        variant
        for program in (
            PROGRAM,
            opened(PROGRAM, SLOTS, layers_of(SLOTS)),
            opened(PROGRAM, SLOTS, ["q"]),
            opened(WHOLE, WHOLE_SLOTS, layers_of(WHOLE_SLOTS)),
        )
        for variant in variants(program, [ONE], ARCH)
    )
)


def pairs_for(shapes: Shapes, layers: list[str], seed: int, rank: int = 3) -> Pairs:
    random = np.random.default_rng(seed)
    found = {}
    for layer in layers:
        depth = int(np.prod(shapes[layer][1:]))
        down, up = (
            random.standard_normal([rank if isinstance(side, str) else side for side in tensor.shape])
            for tensor in pair_inputs(layer, shapes[layer])
        )
        found[layer] = ((down / depth**0.5).astype(np.float32), (0.3 * up).astype(np.float32))
    return found


def as_inputs(pairs: Pairs, shapes: Shapes) -> dict[str, np.ndarray]:
    return {
        tensor.name: array
        for layer, both in pairs.items()
        for tensor, array in zip(pair_inputs(layer, shapes[layer]), both, strict=True)
    }


def wanted(pairs: Pairs, *, whole: bool = False) -> np.ndarray:
    """By the same kernels, each value in memory of its own."""
    program, slots, shapes = (WHOLE, WHOLE_SLOTS, WHOLE_SHAPES) if whole else (PROGRAM, SLOTS, SHAPES)
    arrays: dict[str, np.ndarray] = dict(WHOLE_WEIGHTS if whole else WEIGHTS)
    for slot in slots:
        if not pairs.keys().isdisjoint(slot.layers):
            arrays |= slot_arrays(slot, pairs, shapes, ONE.rank)
    return executed(opened(program, slots, pairs), arrays, inputs_at(ONE), ONE, ARCH)


@pytest.fixture
def device() -> CudaDevice:
    return fake_device()


@pytest.fixture
def driver(device: CudaDevice) -> ProgramDriver:
    return driver_of(device)


def runner_of(folder: Path, device: CudaDevice, *, whole: bool = False) -> CudaRunner:
    program, weights = (WHOLE, WHOLE_WEIGHTS) if whole else (PROGRAM, WEIGHTS)
    own, shapes = (WHOLE_SLOTS, WHOLE_SHAPES) if whole else (SLOTS, SHAPES)
    entry = write_component(folder, "base/unet", program, weights, {"89": SPECS}, CONTENT)
    (folder / "base/unet" / SLOTS_FILE).write_text(slots_text(own), encoding="utf-8")
    activation = ActivationModel(terms={"batch*pixels": 16.0})
    graph = OpenGraph(file=SLOTS_FILE, groups=("all",), activation=activation)
    there = {layer: shapes[layer] for layer in layers_of(own)}
    files = (*entry.files, entry_of(folder, f"base/unet/{SLOTS_FILE}"))
    entry = replace(entry, files=files, openings=Openings(layers={"all": there}, factors="", graphs=(graph,)))
    return CudaRunner(folder, "base/unet", entry, device)


@pytest.fixture
def runner(tmp_path: Path, device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaRunner]:
    """At the end nothing may be left on its device."""
    poison_the_dead(monkeypatch)
    yield runner_of(tmp_path, device)
    device.close()
    assert not device.__dict__.get("driver")


def open_of(runner: CudaRunner) -> CudaOpenRunner:
    assert isinstance(runner, Opens)
    assert runner.openings is not None
    graph = graph_for(runner, ["q"])
    assert graph is not None
    found = runner.opened(graph)
    assert isinstance(found, CudaOpenRunner)
    assert runner.opened(graph) is found
    return found


def predicted(runner: Any, held: Any = None, inputs: Any = None) -> np.ndarray:
    return np.asarray(runner(inputs_at(ONE) if inputs is None else inputs, held)["prediction"])


def test_every_kind_of_call_adds_its_pair(tmp_path: Path, device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear layers, one with a gate, convolutions down, up and of two pictures."""
    poison_the_dead(monkeypatch)
    layers = layers_of(WHOLE_SLOTS)
    assert set(layers) == WHOLE_SHAPES.keys()
    pairs = pairs_for(WHOLE_SHAPES, layers, 0)
    plain = runner_of(tmp_path, device, whole=True)
    open_runner = open_of(plain)
    held = open_runner.hold(as_inputs(pairs, WHOLE_SHAPES))
    np.testing.assert_array_equal(predicted(open_runner, held), wanted(pairs, whole=True))
    device.close()


def test_another_lora_takes_the_place_of_the_first_in_the_same_graph(runner: CudaRunner, driver: ProgramDriver) -> None:
    open_runner = open_of(runner)
    found = []
    for seed in (0, 1):
        pairs = pairs_for(SHAPES, layers_of(SLOTS), seed, rank=3 + seed)
        held = open_runner.hold(as_inputs(pairs, SHAPES))
        found.append(predicted(open_runner, held))
        np.testing.assert_array_equal(found[-1], wanted(pairs))
    assert driver.captures == 1
    assert not np.array_equal(found[0], found[1])


def test_layers_without_a_pair_are_as_ever(runner: CudaRunner, driver: ProgramDriver) -> None:
    open_runner, pairs = open_of(runner), pairs_for(SHAPES, ["q"], 0)
    held = open_runner.hold(as_inputs(pairs, SHAPES))
    before = len(driver.launched)
    np.testing.assert_array_equal(predicted(open_runner, held), wanted(pairs))
    with_pairs = len(driver.launched) - before
    np.testing.assert_array_equal(predicted(open_runner), executed(PROGRAM, WEIGHTS, inputs_at(ONE), ONE, ARCH))
    assert with_pairs == len(driver.launched) - before - with_pairs + 2


def test_the_same_lora_is_brought_once(runner: CudaRunner, driver: ProgramDriver) -> None:
    open_runner, pairs = open_of(runner), as_inputs(pairs_for(SHAPES, ["q"], 0), SHAPES)
    first = open_runner.hold(pairs)
    predicted(open_runner, first)
    uploads = len(driver.uploads)
    assert open_runner.hold(dict(pairs)) is first
    predicted(open_runner, first)
    assert len(driver.uploads) == uploads + 1, "what changes from step to step"
    again = open_runner.hold({name: array.copy() for name, array in pairs.items()})
    assert again is not first


def test_what_a_picture_holds_lies_beside_it(runner: CudaRunner) -> None:
    open_runner, pairs = open_of(runner), pairs_for(SHAPES, layers_of(SLOTS), 0)
    adapted = Adapted(open=open_runner, additions=open_runner.hold(as_inputs(pairs, SHAPES)))
    inputs = inputs_at(ONE)
    for _ in range(2):
        held = adapted.hold({name: inputs[name] for name in HELD})
        changing = {name: array for name, array in inputs.items() if name not in HELD}
        for _ in range(2):
            np.testing.assert_array_equal(predicted(adapted, held, changing), wanted(pairs))
        held.release()


def test_additions_outlive_the_weights(runner: CudaRunner, driver: ProgramDriver) -> None:
    """As where the refiner takes the base's place between two pictures."""
    open_runner, pairs = open_of(runner), pairs_for(SHAPES, ["q"], 0)
    held = open_runner.hold(as_inputs(pairs, SHAPES))
    first = predicted(open_runner, held)
    open_runner.release()
    assert not driver.memory_now
    np.testing.assert_array_equal(predicted(open_runner, held), first)


def test_the_plan_counts_what_is_added(runner: CudaRunner, driver: ProgramDriver) -> None:
    open_runner, pairs = open_of(runner), pairs_for(SHAPES, layers_of(SLOTS), 0)
    additions = open_runner.hold(as_inputs(pairs, SHAPES))
    adapted = Adapted(open=open_runner, additions=additions)
    sizes = PlanSizes(rows=1, tokens=77, steps=1, pixels=64 * ONE.height * ONE.width)
    predicted(adapted)
    own, with_pairs = open_runner.footprint(sizes), adapted.footprint(sizes)
    assert with_pairs.weights - own.weights == open_runner.added_bytes(additions) > 0
    assert own.working == 2 * runner.footprint(sizes).working, "as the graph's own model says"
    assert with_pairs.weights >= sum(size for _, size in driver.memory_now.values()) - own.working - len(CONTENT)


def test_two_loras_in_turn(runner: CudaRunner) -> None:
    open_runner = open_of(runner)
    both = [pairs_for(SHAPES, layers, seed) for layers, seed in ((["q"], 0), (layers_of(SLOTS), 1))]
    held = [open_runner.hold(as_inputs(pairs, SHAPES)) for pairs in both]
    for i in (0, 1, 0):
        np.testing.assert_array_equal(predicted(open_runner, held[i]), wanted(both[i]))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"lora.q.down": (32, 3)}, "missing inputs"),
        ({"lora.q.down": (32, 3), "lora.q.up": (4, 64)}, "rank.q"),
        ({"lora.q.down": (31, 3), "lora.q.up": (3, 64)}, "lora.q.down"),
        ({"lora.q.down": (32, 3), "lora.q.up": (3, 64), "key": (1,)}, "takes no inputs .'key'. beside pairs"),
        ({"lora.q.down": (32, 600), "lora.q.up": (600, 64)}, "come to 600, and this engine takes 512"),
    ],
)
def test_pairs_that_do_not_fit(runner: CudaRunner, inputs: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        open_of(runner).hold({name: np.ones(shape, np.float32) for name, shape in inputs.items()})
