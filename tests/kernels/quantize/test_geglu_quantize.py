import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.quantize.op import geglu_quantize
from pocketxl.kernels.quantize.plan import plan_geglu_quantize
from pocketxl.kernels.quantize.reference import geglu_ref

from ...fixtures.kernels import DEVICE, poisoned
from .checks import assert_float8, assert_int8


def normal(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2).to(DEVICE, dtype)


def torch_path(x: Tensor) -> Tensor:
    value, gate = x.float().chunk(2, -1)
    return value * functional.gelu(gate)


@pytest.mark.parametrize(("m", "n"), [(1, 2560), (77, 64), (154, 80), (1023, 16), (2, 3072), (3, 5120)])
def test_tokens_within_half_a_step_and_every_element_written(m: int, n: int) -> None:
    x = normal(m, 2 * n)
    made = execute(plan_geglu_quantize(m=m, n=n, arch=architecture_of(x)), {"x": x}, allocate=poisoned)
    assert_int8((made["q"], made["scale"]), geglu_ref(x), torch_path(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_floats_and_leading_dimensions(dtype: torch.dtype) -> None:
    x = normal(2, 7, 64, dtype=dtype)
    assert_int8(geglu_quantize(x), geglu_ref(x), torch_path(x))


def test_gates_far_from_zero_close_and_open() -> None:
    x = normal(4, 32)
    x[0, 16:], x[1, 16:], x[2, 16:20] = -60000, 60000, -5
    x[1, :16] = 1
    assert_int8(geglu_quantize(x), geglu_ref(x), torch_path(x))
    assert not geglu_quantize(x)[0][0].any()


def test_an_outlier_channel_a_token_of_zeros_and_products_that_float16_cannot_hold() -> None:
    x = normal(5, 96)
    x[:, 7] *= 50
    x[2] = 0
    x[3, 9], x[3, 48 + 9] = 60000, 60000
    made = geglu_quantize(x)
    assert made[1].isfinite().all()
    assert_int8(made, geglu_ref(x), torch_path(x))


@pytest.mark.parametrize("place", [3, 40])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_makes_the_scale_of_its_token_nan(wrong: float, place: int) -> None:
    x = normal(4, 64)
    x[2, place] = wrong
    q, scale = geglu_quantize(x)
    assert scale.isnan().tolist() == [False, False, True, False]
    assert_int8((q[:2], scale[:2]), geglu_ref(x[:2]), torch_path(x[:2]))


def test_two_runs_are_equal_to_the_bit_and_float8() -> None:
    x = normal(9, 96)
    assert all(torch.equal(a, b) for a, b in zip(geglu_quantize(x), geglu_quantize(x), strict=True))
    assert_float8(geglu_quantize(x, torch.float8_e4m3fn), geglu_ref(x))


@pytest.mark.parametrize(("m", "n", "reason"), [(8, 40, "n=40.*multiple of 16"), (0, 16, "m=0.*at least one row")])
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(m: int, n: int, reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_geglu_quantize(m=m, n=n, arch=architecture(89))
