import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.norm.op import layer_norm
from pocketxl.kernels.norm.plan import plan_layer_norm
from pocketxl.kernels.norm.reference import layer_norm_ref

from ...fixtures.kernels import assert_as_good_as_torch, poisoned
from .test_layer_norm_quantize import EPS, operands


def check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Poisoned memory, and at most twice the error of torch's."""
    plan = plan_layer_norm(m=x.shape[0], c=x.shape[1], arch=architecture_of(x), eps=EPS)
    made = execute(plan, {"x": x, "weight": weight, "bias": bias}, allocate=poisoned)["out"]
    peer = functional.layer_norm(x, x.shape[-1:], weight, bias, EPS)
    assert_as_good_as_torch(made, peer, layer_norm_ref(x, weight, bias, EPS))


@pytest.mark.parametrize(("m", "c"), [(1, 640), (77, 768), (1023, 16), (5, 1280), (2, 1040)])
def test_is_as_good_as_torch_and_every_element_written(m: int, c: int) -> None:
    check(*operands(m, c))


@settings(max_examples=5, deadline=None)
@given(m=st.integers(1, 30), c=st.integers(1, 60).map(lambda part: 16 * part), seed=st.integers(0, 99))
def test_any_shape_in_the_constraints(m: int, c: int, seed: int) -> None:
    check(*operands(m, c, seed=seed))


@pytest.mark.usefixtures("arithmetic")
def test_a_constant_token_is_the_bias() -> None:
    x, weight, bias = operands(4, 80)
    x[1], x[2] = 0, 60000
    assert torch.equal(layer_norm(x, weight, bias, EPS)[1:3], bias.expand(2, -1))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_token(wrong: float) -> None:
    x, weight, bias = operands(4, 80)
    x[2, 71] = wrong
    assert layer_norm(x, weight, bias, EPS).isnan().all(-1).tolist() == [False, False, True, False]


def test_other_floats_and_leading_dimensions() -> None:
    x, weight, bias = operands(2, 7, 96, dtype=torch.float32)
    value = layer_norm(x, weight.half(), bias.half(), EPS)
    assert (value.dtype, value.shape) == (torch.float32, x.shape)
    truth = layer_norm_ref(x, weight.half(), bias.half(), EPS)
    assert_as_good_as_torch(
        value, functional.layer_norm(x, (96,), weight.half().float(), bias.half().float(), EPS), truth
    )


def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason() -> None:
    with pytest.raises(UnsupportedShapeError, match=r"layer_norm .*c=24.*multiple of 16"):
        plan_layer_norm(m=8, c=24, arch=architecture(89))
    with pytest.raises(UnsupportedShapeError, match=r"layer_norm .*eps=0.0.*positive"):
        plan_layer_norm(m=8, c=32, arch=architecture(89), eps=0.0)


def test_export_takes_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            out: Tensor = layer_norm(x, weight, bias, EPS)
            return out + 1

    given_ = tuple(value.cpu() for value in operands(3, 32))
    exported = torch.export.export(Block(), given_)
    assert "pocketxl.layer_norm.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(*given_), Block()(*given_))
