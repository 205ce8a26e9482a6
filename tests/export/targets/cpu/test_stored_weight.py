"""Weights on their way into the file: read late, rounded once, stored as what they are."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from torch import nn

from pocketxl.export.graph.stored_weight import StoredWeight
from pocketxl.export.quantize import rounding
from pocketxl.export.quantize.formats import W4, W8, W8A8_DYNAMIC, W8A8_GROUP, Format, Kind
from pocketxl.export.targets.cpu.linear_int8 import linear_int8
from pocketxl.export.targets.cpu.weight_groups import weight_groups
from pocketxl.export.targets.onnx.linear_groups import linear_groups

from .lowering import Single, all_as, image_spec, master_of, noise, token_spec


def weight_of(values: np.ndarray, **how: object) -> StoredWeight:
    assert W8.weight is not None
    source = ir.Tensor(values.astype(np.float32), name="layer.weight")
    return StoredWeight(name="layer", source=source, how=W8.weight, **how)  # type: ignore[arg-type]


def test_nothing_is_read_before_a_tensor_is_asked_for() -> None:
    reads = []

    def read() -> ir.Tensor:
        reads.append(1)
        return ir.Tensor(noise(6, 10))

    assert W8.weight is not None
    source = ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape([6, 10]))
    weight = StoredWeight(name="layer", source=source, how=W8.weight)
    tensors = [weight.int8(transposed=True), weight.scale()]
    assert not reads
    assert [tuple(tensor.shape) for tensor in tensors] == [(10, 6), (6,)]
    assert tensors[0].numpy().shape == (10, 6)
    np.testing.assert_array_equal(tensors[0].numpy().T, weight.int8().numpy())


def test_scales_of_the_input_are_in_the_weight_and_out_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    real = rounding.round_weight

    def watched(matrix: np.ndarray, how: object, *, inputs: np.ndarray, taps: int) -> object:
        seen.update(product=inputs @ matrix.T, taps=taps)
        return real(matrix, how, inputs=inputs, taps=taps)  # type: ignore[arg-type]

    monkeypatch.setattr(rounding, "round_weight", watched)
    values, inputs = noise(5, 3, 2, 2), noise(40, 12, seed=1)
    scale = np.array([0.01, 1, 30], np.float32)
    weight = weight_of(values, inputs=inputs, input_scale=scale)
    stored = weight.int8().numpy() * weight.scale().numpy().reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(seen["product"], inputs @ values.reshape(5, -1).T, rtol=1e-4, atol=1e-4)
    assert seen["taps"] == 4
    wanted = values * scale.reshape(1, -1, 1, 1)
    assert np.abs(stored - wanted).max() <= 0.51 * np.abs(wanted).max() / 127


@pytest.mark.parametrize(
    ("kind", "format"),
    [(Kind.LINEAR, W8A8_DYNAMIC), (Kind.LINEAR, W8A8_GROUP), (Kind.LINEAR, W4), (Kind.CONV, W4)],
    ids=["w8a8", "w8a8 in groups", "w4", "w4 convolution"],
)
def test_a_layer_is_rounded_once(kind: Kind, format: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, scales and zero points are asked for one after the other; rounding is what a build waits for."""
    calls = []
    real = rounding.round_weight

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(rounding, "round_weight", counted)
    layers = nn.Linear(640, 320), nn.Linear(320, 640)
    convs = nn.Conv2d(64, 128, 3), nn.Conv2d(128, 64, 3)
    pair = nn.Sequential(*(layers if kind is Kind.LINEAR else convs))
    model = master_of(Single(pair), token_spec(640, 640) if kind is Kind.LINEAR else image_spec(64, 64))
    known = all_as(kind, format)
    for rewrite in (linear_int8, linear_groups, weight_groups):
        rewrite(model.graph, known)
    model.graph.opset_imports["com.microsoft"] = 1
    ir.save(model, tmp_path / "model.onnx", external_data="model.onnx.data")
    assert len(calls) == 2
