"""A model that OpenVINO compiles in parts."""

import threading
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.ending import Ended
from pocketxl.engine.runners import openvino_parts
from pocketxl.engine.runners.openvino_parts import Compiled, Part, compiled, cut, parts_for

ov = pytest.importorskip("openvino")
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
BLOCKS = 12
SIZE = (1, 4, 6, 6)


def network() -> Any:
    """Residual blocks with a skip connection from every one of the first half to one of the second, like a U-Net's.

    `bend` is read by all blocks; `unread` by none; a value is split and one half of it is used at the very end.
    """
    from openvino import opset13 as ops

    random = np.random.default_rng(1)

    def weight(*shape: int) -> Any:
        return ops.constant((random.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32))

    given = ops.parameter([*SIZE], np.float32, name="latents")
    bend = ops.parameter([1, 4, 1, 1], np.float32, name="bend")
    unread = ops.parameter([1, 2], np.float32, name="unread")
    for node in (given, bend, unread):
        node.output(0).get_tensor().set_names({node.get_friendly_name()})
    halves = ops.split(given, ops.constant(np.int64(1)), 2)
    hidden = ops.add(given, bend)
    skips: list[Any] = []
    for block in range(BLOCKS):
        if block >= BLOCKS // 2:
            hidden = ops.add(hidden, skips.pop())
        inner = ops.convolution(ops.multiply(hidden, bend), weight(4, 4, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
        hidden = ops.add(hidden, ops.tanh(ops.add(inner, weight(1, 4, 1, 1))))
        if block < BLOCKS // 2:
            skips.append(hidden)
    last = ops.concat([hidden, halves.output(1)], 1)
    model = ov.Model([ops.result(last), ops.result(ops.relu(hidden))], [given, bend, unread], "network")
    for port, name in zip(model.outputs, ("prediction", "other"), strict=True):
        port.get_tensor().set_names({name})
    return model


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    shapes = {"latents": SIZE, "bend": (1, 4, 1, 1), "unread": (1, 2)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def ready(parts: tuple[Part, ...]) -> Compiled:
    core = ov.Core()
    return Compiled(compiled(parts, lambda model: core.compile_model(model, "CPU", EXACT)))


def expected(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    request = ov.Core().compile_model(network(), "CPU", EXACT).create_infer_request()
    request.infer(inputs)
    return {name: np.array(request.get_tensor(name).data) for name in ("prediction", "other")}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_parts_give_what_the_whole_gives(number: int, inputs: dict[str, np.ndarray]) -> None:
    parts = cut(network(), number)
    assert len(parts) == number
    found = ready(parts).request().run(inputs, ("prediction", "other"))
    for name, array in expected(inputs).items():
        assert np.array_equal(found[name], array), name


def test_parts_are_of_a_size_and_only_what_is_whole_crosses() -> None:
    whole = len(network().get_ops())
    parts = cut(network(), 4)
    given = {"latents", "bend"}
    for part in parts[:-1]:
        assert len(part.model.get_ops()) < whole / 2
        for port, name in zip(part.model.outputs, part.outputs, strict=True):
            kind = port.get_node().input_value(0).get_node().get_type_name()
            assert kind in {"Add", "Split"} or name in {"prediction", "other"}
    for part in parts:
        assert set(part.inputs) <= given
        given |= set(part.outputs)


def test_the_fewest_bytes_cross() -> None:
    """In the middle of a U-Net there are all skips, at its ends there are none."""
    first, *_, last = cut(network(), 4)
    middle, _ = cut(network(), 2)
    assert len(first.outputs) < len(middle.outputs)
    assert len(last.inputs) < len(middle.outputs)


def test_where_nothing_whole_crosses_there_is_no_cut() -> None:
    from openvino import opset13 as ops

    value = given = ops.parameter([1, 4], np.float32, name="latents")
    given.output(0).get_tensor().set_names({"latents"})
    for _ in range(40):
        value = ops.tanh(value)
    model = ov.Model([ops.result(value)], [given], "chain")
    model.output(0).get_tensor().set_names({"prediction"})
    assert len(cut(model, 4)) == 1


def test_large_models_are_cut_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts_for(network()) == 1
    for operations, parts in ((40, 2), (30, 3), (1, openvino_parts.MOST_PARTS)):
        monkeypatch.setattr(openvino_parts, "PART_OPERATIONS", operations)
        assert parts_for(network()) == parts


def test_a_request_is_used_again_but_not_one_that_was_stopped(inputs: dict[str, np.ndarray]) -> None:
    model = ready(cut(network(), 2))
    first = model.request()
    kept = first.run(inputs, ("prediction",))["prediction"]
    copy = kept.copy()
    second = model.request()
    assert second._steps is first._steps
    third = model.request()
    assert third._steps is not first._steps, "one that runs is nobody else's"
    second.run({**inputs, "latents": -inputs["latents"]}, ("prediction",))
    assert np.array_equal(kept, copy), "the first call's output is its caller's"
    third.cancel()
    with pytest.raises(Ended):
        third.run(inputs, ("prediction",))
    assert model.request()._steps is first._steps
    assert model.request()._steps is not third._steps


def test_several_threads(inputs: dict[str, np.ndarray]) -> None:
    model, wrong = ready(cut(network(), 3)), []
    want = expected(inputs)["prediction"]

    def call() -> None:
        for _ in range(20):
            if not np.array_equal(model.request().run(inputs, ("prediction",))["prediction"], want):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
