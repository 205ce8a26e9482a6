"""Weight-only int8: the stored weight is rounded, the arithmetic is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.specs import INT, ComponentSpec, Role, TensorSpec
from pocketxl.export.quantize.formats import W8, Kind
from pocketxl.export.targets.cpu.weight_only import weight_only

from ....tolerances import MODEL_RELATIVE
from .lowering import all_as, answer, image_spec, l2_error, master_of, noise, operators, run, token_spec


class Layer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


def rounded(module: Layer) -> Layer:
    """The same module with its weight on 255 levels per output channel: the oracle."""
    weight = module.layer.weight.detach()
    scale = weight.abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (weight.ndim - 1)) / 127
    module.layer.weight = nn.Parameter((weight / scale).round() * scale)
    return module


@pytest.mark.parametrize("optimize", [False, True], ids=["as written", "optimized"])
@pytest.mark.parametrize(
    ("kind", "layer", "shape"),
    [
        (Kind.LINEAR, nn.Linear(64, 48), (2, 5, 64)),
        (Kind.LINEAR, nn.Linear(64, 48, bias=False), (1, 77, 64)),
        (Kind.CONV, nn.Conv2d(6, 8, 3, padding=1, stride=2), (2, 6, 9, 7)),
    ],
    ids=["linear", "no bias", "conv"],
)
def test_arithmetic_stays_in_floats(
    kind: Kind, layer: nn.Module, shape: tuple[int, ...], optimize: bool, tmp_path: Path
) -> None:
    module = Layer(layer)
    spec = token_spec(64, 48) if kind is Kind.LINEAR else image_spec(6, 8)
    model = master_of(module, spec)
    weight_only(model.graph, all_as(kind, W8))
    x = noise(*shape)
    x.flat[0] = 300.0  # an outlier, as begin-of-text tokens have: it would ruin 8-bit activations
    y = run(model, tmp_path, {"x": x}, optimize=optimize)
    assert l2_error(y, answer(rounded(module), x)) < MODEL_RELATIVE
    assert operators(model)["DequantizeLinear"] == 1
    assert not operators(model)["MatMul"]


def test_embedding_gathers_int8_rows(tmp_path: Path) -> None:
    spec = ComponentSpec(
        role=Role.TEXT_ENCODER,
        inputs=(TensorSpec(name="x", shape=("batch", 7), dtype=INT),),
        outputs=(TensorSpec(name="y", shape=("batch", 7, 16)),),
    )
    module = Layer(nn.Embedding(50, 16))
    model = master_of(module, spec)
    weight_only(model.graph, all_as(Kind.EMBEDDING, W8))
    ids = np.arange(14, dtype=np.int64).reshape(2, 7) * 3
    y = run(model, tmp_path, {"x": ids})
    np.testing.assert_allclose(y, answer(rounded(module), ids), rtol=1e-6)
    assert not operators(model)["DequantizeLinear"], "the table is never floats as a whole"
    assert torch.is_tensor(module.layer.weight)
