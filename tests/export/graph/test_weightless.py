"""What tells a graph from others."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from pocketxl.engine.architecture import UNetArchitecture
from pocketxl.engine.folder.activation import ActivationModel
from pocketxl.engine.models.unet import UNet
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.memo import Memo
from pocketxl.export.graph.weightless import Weightless
from pocketxl.export.targets.onnx import openings

from ...fixtures.smallest import SMALLEST


def master(architecture: UNetArchitecture) -> ir.Model:
    return export_master("unet", lambda: UNet(architecture), architecture.unet())


def digest(model: ir.Model) -> bytes:
    return Weightless("unet", model).digest


def test_sizes_are_no_part_of_it() -> None:
    first = Weightless("unet", master(SMALLEST))
    first.bytes_at({"batch": 1, "tokens": 77, "height": 32, "width": 32})
    assert first.digest == digest(master(SMALLEST))


@pytest.mark.parametrize("change", ["network", "attribute", "order", "constant", "input"])
def test_whatever_else_differs_is(change: str) -> None:
    plain = master(SMALLEST)
    other = (
        master(replace(SMALLEST, norm_num_groups=SMALLEST.norm_num_groups // 2))
        if change == "network"
        else plain.clone()
    )
    graph = other.graph
    if change == "attribute":
        node = next(node for node in graph if node.op_type == "Softmax" or "axis" in node.attributes)
        node.attributes["axis"] = ir.AttrInt64("axis", 0)
    if change == "order":
        node = next(node for node in graph if len(node.inputs) == 2 and node.inputs[0] is not node.inputs[1])
        first, second = node.inputs
        node.replace_input_with(0, second)
        node.replace_input_with(1, first)
    if change == "constant":
        value = next(value for value in graph.initializers.values() if value.const_value is not None)
        assert value.const_value is not None
        value.const_value = ir.Tensor(np.asarray(value.const_value.numpy()) + 1, name=value.name)
    if change == "input":
        graph.inputs[0].shape = ir.Shape((2, *list(graph.inputs[0].shape or ())[1:]))
    assert digest(other) != digest(plain)


def test_open_graphs_of_one_network_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = openings._activation

    def counted(*given: Any) -> ActivationModel:
        asked.append(given)
        return real(*given)

    monkeypatch.setattr(openings, "_activation", counted)
    monkeypatch.setattr(openings, "_DESCRIBED", Memo(2))
    spec = SMALLEST.unet()
    first = openings.describe_openings("unet", master(SMALLEST), spec, {})
    once = len(asked)
    assert once
    assert openings.describe_openings("unet", master(SMALLEST), spec, {}) is first
    assert len(asked) == once
    deeper = replace(SMALLEST, mid_transformer_layers=2)
    assert openings.describe_openings("unet", master(deeper), deeper.unet(), {}) != first
