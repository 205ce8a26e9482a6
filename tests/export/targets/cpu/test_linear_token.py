"""int8 linear layers with a range for every token: the arithmetic, outlier tokens, shared quantization."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketxl.export.quantize.formats import W8A8_DYNAMIC, W8A8_TOKEN, Kind
from pocketxl.export.targets.cpu.linear_int8 import linear_int8
from pocketxl.export.targets.cpu.linear_token import linear_token

from ....tolerances import INT8_KERNEL_RELATIVE
from .lowering import Single, all_as, answer, dequantized, l2_error, master_of, noise, operators, run, token_spec

EVERY = all_as(Kind.LINEAR, W8A8_TOKEN)


class Layers(nn.Module):
    """Two readers of one activation, and a layer behind them."""

    def __init__(self, width: int, out: int, *, bias: bool) -> None:
        super().__init__()
        self.to_q, self.to_k = (nn.Linear(width, out, bias=bias) for _ in range(2))
        self.after = nn.Linear(out, out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.to_q(x) + self.to_k(x))
        return y


def product(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    """127 steps for a token's largest magnitude, in float64: the oracle."""
    scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True).astype(np.float64) / 127, 1e-30)
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    y: np.ndarray = (np.rint(x / scale) * scale) @ dequantized(layer.weight, W8A8_TOKEN.weight).T + bias
    return y


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "out"), [(24, 16), (33, 7), (640, 640)])
def test_every_token_has_its_range(width: int, out: int, bias: bool, unsigned: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Layers(width, out, bias=bias)
    model = master_of(module, token_spec(width, out))
    linear_token(model.graph, EVERY)
    x = noise(2, 5, width) * np.array([1, 1000, 1e-3, 0, 30], np.float32).reshape(1, 5, 1) + 0.7
    x[0, 3] = 0
    y = run(model, tmp_path, {"x": x}, unsigned=unsigned)
    expected = product(module.after, product(module.to_q, x) + product(module.to_k, x))
    for token in range(5):
        size = max(float(np.linalg.norm(expected[0, token])), 1e-6)
        assert np.linalg.norm(y[0, token] - expected[0, token]) < 4 * INT8_KERNEL_RELATIVE * size
    assert operators(model)["QuantizeLinear"] == 2
    assert operators(model)["MatMulIntegerToFloat"] == 3


def test_an_outlier_costs_its_own_token_only(tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = Single(nn.Linear(64, 48))
    x = noise(1, 8, 64)
    x[0, 0] *= 100
    exact = answer(module, x)
    errors = []
    for rewrite, format in ((linear_token, W8A8_TOKEN), (linear_int8, W8A8_DYNAMIC)):
        model = master_of(module, token_spec(64, 48))
        rewrite(model.graph, all_as(Kind.LINEAR, format))
        errors.append(l2_error(run(model, tmp_path, {"x": x})[0, 1:], exact[0, 1:]))
    assert errors[0] < 0.02
    assert errors[1] > 0.3


def test_threads_change_nothing(tmp_path: Path) -> None:
    model = master_of(Layers(320, 96, bias=True), token_spec(320, 96))
    linear_token(model.graph, EVERY)
    x = noise(2, 77, 320)
    one, *others = (run(model, tmp_path, {"x": x}, threads=threads) for threads in (1, 2, 3, 4))
    assert all(np.array_equal(one, other) for other in others)
