import pytest
import torch
from torch import Tensor

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.quantize.op import quantize_per_image
from pocketxl.kernels.quantize.plan import plan_quantize_per_image

from ...fixtures.kernels import DEVICE, poisoned
from .checks import assert_float8, assert_int8


def pictures(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    """Every picture in a range of its own."""
    random = torch.Generator().manual_seed(0)
    size = torch.arange(1, shape[0] + 1).view(-1, 1, 1, 1) ** 2
    return (torch.randn(shape, generator=random) * size).to(DEVICE, dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1, 16), (2, 24, 36, 16), (2, 7, 11, 320), (1, 13, 5, 384), (1, 40, 27, 48)])
def test_pictures_within_half_a_step_and_every_element_written(shape: tuple[int, int, int, int]) -> None:
    x = pictures(*shape)
    b, h, w, c = shape
    made = execute(plan_quantize_per_image(b=b, h=h, w=w, c=c, arch=architecture_of(x)), {"x": x}, allocate=poisoned)
    assert_int8((made["q"], made["scale"]), x.double(), x.float(), dims=3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_floats(dtype: torch.dtype) -> None:
    x = pictures(2, 9, 9, 32, dtype=dtype)
    assert_int8(quantize_per_image(x), x.double(), x.float(), dims=3)


@pytest.mark.parametrize("place", [(0, 0, 0), (20, 30, 31), (23, 35, 47)])
def test_the_largest_magnitude_is_found_wherever_it_is(place: tuple[int, int, int]) -> None:
    x = pictures(1, 24, 36, 48)
    x[(0, *place)] = -200
    assert_int8(quantize_per_image(x), x.double(), x.float(), dims=3)


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0, 0), (19, 29, 15)])
def test_what_is_not_finite_makes_the_scale_of_its_picture_nan(wrong: float, place: tuple[int, int, int]) -> None:
    x = pictures(3, 20, 30, 16)
    x[(1, *place)] = wrong
    q, scale = quantize_per_image(x)
    assert scale.isnan().tolist() == [False, True, False]
    assert_int8((q[::2], scale[::2]), x[::2].double(), x[::2].float(), dims=3)


def test_a_picture_of_zeros_and_one_at_the_end_of_float16() -> None:
    x = pictures(2, 5, 7, 16)
    x[0] = 0
    x[1, 2, 3, 4] = -65504
    q, scale = quantize_per_image(x)
    assert not q[0].any()
    assert 0 < scale[0] < 1e-30
    assert_int8((q, scale), x.double(), x.float(), dims=3)


def test_a_picture_is_the_same_in_any_batch_and_in_any_run() -> None:
    x = pictures(3, 12, 18, 32)
    q, scale = quantize_per_image(x)
    for _ in range(2):
        alone, alone_scale = quantize_per_image(x[1:2])
        assert torch.equal(alone[0], q[1])
        assert torch.equal(alone_scale[0], scale[1])


def test_float8() -> None:
    x = pictures(2, 5, 7, 32)
    assert_float8(quantize_per_image(x, torch.float8_e4m3fn), x.double(), dims=3)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"b": 1, "h": 8, "w": 8, "c": 24}, "c=24.*multiple of 16"),
        ({"b": 0, "h": 8, "w": 8, "c": 16}, "b=0.*at least one element"),
        ({"b": 1, "h": 4096, "w": 4096, "c": 128}, "counted in 32 bits"),
        ({"b": 1, "h": 8, "w": 8, "c": 16, "dtype": "int4"}, "dtype=int4.*int8, float8_e4m3fn"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, object], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_quantize_per_image(arch=architecture(89), **shape)  # type: ignore[arg-type]
