"""Dynamic int8 linear layers: the arithmetic, and one quantization per activation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.specs import Role
from pocketxl.export.quantize.formats import W8A8_DYNAMIC, Activation, Kind
from pocketxl.export.quantize.input_rounding import round_inputs
from pocketxl.export.targets.cpu.linear_int8 import linear_int8

from ....tolerances import INT8_KERNEL_RELATIVE
from .lowering import all_as, answer, l2_error, master_of, noise, operators, run, token_spec

EVERY = all_as(Kind.LINEAR, W8A8_DYNAMIC)


class One(nn.Module):
    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Linear(24, 16, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y


class Three(nn.Module):
    """Three readers of one activation."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(24, 16, bias=i == 2) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.to_q(x) + self.to_k(x) * self.to_v(x)
        return y


def simulated(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    """W8A8 in plain numpy: the oracle."""
    weight = layer.weight.detach().numpy().astype(np.float64)
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    taken = round_inputs(x.reshape(-1, x.shape[-1]), Activation(bits=8, range="dynamic")).astype(np.float64)
    taken = taken.reshape(x.shape)
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    y: np.ndarray = taken @ (np.rint(weight / scale) * scale).T + bias
    return y


@pytest.mark.parametrize("bias", [True, False])
def test_one_layer_is_one_operator(bias: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = One(bias=bias)
    model = master_of(module, token_spec(24, 16))
    linear_int8(model.graph, EVERY)
    x = noise(2, 5, 24) + 0.7  # off centre, so that a lost zero point shows
    y = run(model, tmp_path, {"x": x})
    assert l2_error(y, simulated(module.proj, x)) < INT8_KERNEL_RELATIVE
    assert operators(model)["DynamicQuantizeMatMul"] == 1
    assert not operators(model)["MatMul"] + operators(model)["Add"]


def test_readers_of_one_activation_share_its_quantization(tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = Three()
    model = master_of(module, token_spec(24, 16))
    linear_int8(model.graph, EVERY)
    x = noise(1, 6, 24) - 0.4
    y = run(model, tmp_path, {"x": x})
    q, k, v = (simulated(layer, x) for layer in (module.to_q, module.to_k, module.to_v))
    assert l2_error(y, q + k * v) < INT8_KERNEL_RELATIVE
    assert operators(model)["DynamicQuantizeLinear"] == 1
    assert operators(model)["MatMulIntegerToFloat"] == 3


def test_layers_that_the_recipe_keeps_are_left_alone(tmp_path: Path) -> None:
    module = One(bias=True)
    model = master_of(module, token_spec(24, 16))
    linear_int8(model.graph, replace(EVERY, role=Role.VAE_DECODER))
    assert not operators(model)["DynamicQuantizeMatMul"]
    x = noise(1, 3, 24)
    np.testing.assert_allclose(run(model, tmp_path, {"x": x}), answer(module, x), atol=1e-5)
