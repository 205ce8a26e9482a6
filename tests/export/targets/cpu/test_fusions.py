"""The rewrites that change no number: SiLU and quick GELU, GEGLU's projection, folded transposes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.engine.models.blocks import GatedGelu
from pocketxl.export.graph.fold_transpose import fold_transpose
from pocketxl.export.graph.split_linear import split_linear
from pocketxl.export.targets.cpu.silu import silu

from ....tolerances import MODEL_RELATIVE
from .lowering import answer, l2_error, master_of, noise, operators, run, token_spec


class Silu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()


class OtherGate(nn.Module):
    """A sigmoid that gates something else."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x) * x.sigmoid()
        return y


@pytest.mark.parametrize("module", [Silu(), QuickGelu()], ids=["silu", "quick gelu"])
def test_activations_become_one_operator(module: nn.Module, tmp_path: Path) -> None:
    model = master_of(module, token_spec(8, 8))
    silu(model.graph)
    assert operators(model) == {"QuickGelu": 1}
    x = 4 * noise(1, 6, 8)
    assert l2_error(run(model, tmp_path, {"x": x}, optimize=False), answer(module, x)) < MODEL_RELATIVE


def test_a_gate_on_something_else_is_no_silu() -> None:
    model = master_of(OtherGate(), token_spec(8, 8))
    silu(model.graph)
    assert operators(model)["Sigmoid"] == 1


def test_gated_projection_becomes_two(tmp_path: Path) -> None:
    torch.manual_seed(4)
    module = GatedGelu(8, 12)
    model = master_of(module, token_spec(8, 12))
    split_linear(model.graph)
    assert not operators(model)["Split"]
    assert operators(model)["MatMul"] == 2
    x = noise(2, 5, 8)
    assert l2_error(run(model, tmp_path, {"x": x}), answer(module, x)) < MODEL_RELATIVE


def test_transposed_weights_are_stored(tmp_path: Path) -> None:
    module = OtherGate()
    model = master_of(module, token_spec(8, 8))
    fold_transpose(model.graph)
    assert not operators(model)["Transpose"]
    np.testing.assert_array_equal(
        model.graph.initializers["proj.weight.transposed"].const_value.numpy(), module.proj.weight.detach().numpy().T
    )
    x = noise(1, 3, 8)
    assert l2_error(run(model, tmp_path, {"x": x}), answer(module, x)) < MODEL_RELATIVE
