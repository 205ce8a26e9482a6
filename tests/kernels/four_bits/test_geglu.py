"""GEGLU on 4-bit weights: as good as torch on what they stand for, in halves and in 8 bits by steps that are known."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.four_bits.op import geglu_linear_w4a8, linear_w4a8
from pocketxl.kernels.four_bits.plan import plan_geglu_linear_w4a8
from pocketxl.kernels.four_bits.reference import geglu_linear_w4a8_ref

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned
from ..steps import assert_steps
from .test_linear import operands, torch_path


@pytest.mark.parametrize(("m", "n", "k"), [(1, 320, 640), (77, 96, 64), (130, 72, 128)])
def test_is_as_good_as_torch_in_float16(m: int, n: int, k: int) -> None:
    given_ = operands(m, 2 * n, k)
    plan = plan_geglu_linear_w4a8(m=m, n=n, k=k, arch=architecture_of(given_["x"]))
    value = execute(plan, given_, allocate=poisoned)["out"]
    both = torch_path(**given_)
    peer = both[:, :n] * torch.nn.functional.gelu(both[:, n:])
    assert_as_good_as_torch(value, peer, geglu_linear_w4a8_ref(**given_))


@settings(max_examples=8, deadline=None)
@given(m=st.integers(1, 140), n=st.integers(1, 100), k=st.integers(1, 4).map(lambda runs: 64 * runs))
def test_any_shape_is_the_gate_behind_the_linear_layer(m: int, n: int, k: int) -> None:
    given_ = operands(m, 2 * n, k, seed=m * n * k)
    value = geglu_linear_w4a8(**given_)
    assert value.shape == (m, n)
    values, gates = linear_w4a8(**given_).chunk(2, -1)
    assert_as_good_as_torch(value, values * torch.nn.functional.gelu(gates), geglu_linear_w4a8_ref(**given_))


@pytest.mark.parametrize(("m", "n", "k"), [(5, 32, 64), (70, 40, 192)])
def test_in_eight_bits_by_the_reader_s_steps(m: int, n: int, k: int) -> None:
    given_ = operands(m, 2 * n, k)
    expected = geglu_linear_w4a8_ref(**given_)
    inverse = (127 / (expected.abs().amax(0) * 0.8 + 1e-3)).float()  # some are clipped
    value = geglu_linear_w4a8(**given_, inverse=inverse)
    assert value.dtype == torch.int8
    assert_steps(value, geglu_linear_w4a8_ref(**given_, inverse=inverse))


def test_nan_in_a_scale_stays_in_its_row_or_column() -> None:
    given_ = operands(5, 32, 128)
    given_["x_scale"][2] = float("nan")
    given_["weight_scale"][9, 1] = float("nan")
    given_["weight_scale"][16 + 3, 0] = float("nan")  # of a gate
    wrong = geglu_linear_w4a8(**given_).isnan()
    expected = torch.zeros(5, 16, dtype=torch.bool, device=DEVICE)
    expected[2], expected[:, 9], expected[:, 3] = True, True, True
    assert torch.equal(wrong, expected)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [({"m": 8, "n": 8, "k": 96}, "runs of 64"), ({"m": 0, "n": 8, "k": 64}, "at least one row")],
)
def test_what_no_kernel_takes_is_refused_by_name(shape: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=f"geglu_linear_w4a8 cannot take.*{reason}"):
        plan_geglu_linear_w4a8(arch=architecture(89), **shape)


def test_compilers_see_the_op() -> None:
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
            made: Tensor = geglu_linear_w4a8(x, x_scale, weight, weight_scale, bias)
            return made

    exported = torch.export.export(Layer(), tuple(operands(6, 32, 64).values()))
    assert "pocketxl.geglu_linear_w4a8.default" in {str(node.target) for node in exported.graph.nodes}
