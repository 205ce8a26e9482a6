import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.norm.op import add_layer_norm_quantize, layer_norm_quantize
from pocketxl.kernels.norm.plan import plan_add_layer_norm_quantize, plan_layer_norm_quantize
from pocketxl.kernels.norm.reference import layer_norm_ref

from ...fixtures.kernels import DEVICE, error, poisoned
from ..quantize.checks import assert_float8, assert_int8, int8_of

EPS = 1e-5


def operands(*shape: int, dtype: torch.dtype = torch.float16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=random) * 3 + 1
    weight, bias = 1 + torch.randn(shape[-1], generator=random) / 4, torch.randn(shape[-1], generator=random)
    return x.to(DEVICE, dtype), weight.to(DEVICE, dtype), bias.to(DEVICE, dtype)


def assert_normalized(made: tuple[Tensor, ...], x: Tensor, weight: Tensor, bias: Tensor) -> None:
    peer = functional.layer_norm(x.float(), x.shape[-1:], weight.float(), bias.float(), EPS)
    assert_int8(made, layer_norm_ref(x, weight, bias, EPS), peer)


@pytest.mark.parametrize(("m", "c"), [(1, 640), (77, 320), (154, 384), (1023, 16), (5, 1280), (3, 768), (2, 1040)])
def test_tokens_within_half_a_step_and_every_element_written(m: int, c: int) -> None:
    x, weight, bias = operands(m, c)
    plan = plan_layer_norm_quantize(m=m, c=c, arch=architecture_of(x), eps=EPS)
    made = execute(plan, {"x": x, "weight": weight, "bias": bias}, allocate=poisoned)
    assert_normalized((made["q"], made["scale"]), x, weight, bias)


@pytest.mark.parametrize(("m", "c"), [(1, 640), (77, 48), (7, 208), (2, 1280)])
def test_a_residual_is_added_first_and_the_sum_is_given_rounded(m: int, c: int) -> None:
    x, weight, bias = operands(m, c)
    residual = operands(m, c, seed=1)[0]
    plan = plan_add_layer_norm_quantize(m=m, c=c, arch=architecture_of(x), eps=EPS)
    inputs = {"x": x, "residual": residual, "weight": weight, "bias": bias}
    made = execute(plan, inputs, allocate=poisoned)
    assert torch.equal(made["total"], x + residual)
    assert_normalized((made["q"], made["scale"]), made["total"], weight, bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_floats_and_leading_dimensions(dtype: torch.dtype) -> None:
    x, weight, bias = operands(2, 7, 96, dtype=dtype)
    assert_normalized(layer_norm_quantize(x, weight, bias, EPS), x, weight, bias)
    q, scale, total = add_layer_norm_quantize(x, x, weight.float(), bias.float(), EPS)
    assert torch.equal(total, x + x)
    assert_normalized((q, scale), total, weight, bias)


def test_a_mean_far_above_the_spread_is_not_cancelled() -> None:
    x, weight, bias = operands(5, 96, dtype=torch.float32)
    x[0] += 1e4
    x[1] -= 3e5
    q, scale = layer_norm_quantize(x, weight, bias, EPS)
    truth = layer_norm_ref(x, weight, bias, EPS)
    peer = int8_of(functional.layer_norm(x, (96,), weight, bias, EPS), 1)
    assert error(q * scale[:, None].double(), truth) <= 2 * error(peer, truth)


def test_an_outlier_channel_and_the_end_of_float16() -> None:
    x, weight, bias = operands(6, 64)
    x[:, 5] *= 50
    x[3, ::2], x[3, 1::2] = 65504, -65504
    assert_normalized(layer_norm_quantize(x, weight, bias, EPS), x, weight, bias)


@pytest.mark.usefixtures("arithmetic")
def test_a_constant_token_is_the_bias() -> None:
    x, weight, bias = operands(4, 80)
    x[1], x[2] = 0, 60000
    q, scale = layer_norm_quantize(x, weight, bias, EPS)
    assert_int8((q[1:3], scale[1:3]), bias.double().expand(2, -1), bias.float().expand(2, -1))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_makes_the_scale_of_its_token_nan(wrong: float) -> None:
    x, weight, bias = operands(4, 80)
    x[2, 71] = wrong
    q, scale = layer_norm_quantize(x, weight, bias, EPS)
    assert scale.isnan().tolist() == [False, False, True, False]
    assert_normalized((q[:2], scale[:2]), x[:2], weight, bias)


def test_a_sum_or_a_variance_that_overflows_makes_the_scale_nan() -> None:
    x, weight, bias = operands(3, 32)
    x[1, 3] = 60000
    _, scale, total = add_layer_norm_quantize(x, x, weight, bias, EPS)
    assert total[1, 3].isinf()
    assert scale.isnan().tolist() == [False, True, False]
    wide = x.float()
    wide[0, ::2] = 1e30
    assert layer_norm_quantize(wide, weight, bias, EPS)[1].isnan().tolist() == [True, False, False]


def test_two_runs_are_equal_to_the_bit_and_float8() -> None:
    x, weight, bias = operands(9, 96)
    first, second = (layer_norm_quantize(x, weight, bias, EPS) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert_float8(layer_norm_quantize(x, weight, bias, EPS, torch.float8_e4m3fn), layer_norm_ref(x, weight, bias, EPS))


@settings(max_examples=5, deadline=None)
@given(m=st.integers(1, 30), c=st.integers(1, 60).map(lambda part: 16 * part), seed=st.integers(0, 99))
def test_any_shape_in_the_constraints(m: int, c: int, seed: int) -> None:
    x, weight, bias = operands(m, c, seed=seed)
    assert_normalized(layer_norm_quantize(x, weight, bias, EPS), x, weight, bias)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"m": 8, "c": 24}, "c=24.*multiple of 16"),
        ({"m": 8, "c": 32, "eps": 0.0}, "eps=0.0.*positive"),
        ({"m": 8, "c": 32, "parameter_dtype": "int8"}, "parameter_dtype=int8.*float16"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, object], reason: str) -> None:
    for plan in (plan_layer_norm_quantize, plan_add_layer_norm_quantize):
        with pytest.raises(UnsupportedShapeError, match=reason):
            plan(arch=architecture(89), **shape)  # type: ignore[arg-type]
