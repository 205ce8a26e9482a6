import pytest
import torch

from pocketxl.kernels.errors import KernelError, UnsupportedShapeError
from pocketxl.kernels.weight_only.pack import pack_w4, pack_w8, unpack_w4
from pocketxl.kernels.weight_only.reference import unpack_w8

from ...tolerances import W4_GAUSSIAN, W4_GAUSSIAN_AMAX


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def relative(weight: torch.Tensor, again: torch.Tensor) -> float:
    return float((again - weight).square().sum() / weight.square().sum())


@pytest.mark.parametrize("group", [32, 64, 128])
def test_layout_is_as_documented(group: int) -> None:
    """Byte j of a run of 64 holds k = j low and k = 32 + j high, plus eight; scales are in the order of k."""
    n, k = 5, 256
    packed, scale = pack_w4(gaussian(n, k), group)
    assert packed.shape == (n, k // 2)
    assert packed.dtype == torch.uint8
    assert scale.shape == (n, k // group)
    assert scale.dtype == torch.float16
    weights = unpack_w4(packed, scale, torch.float64)
    for row, at in ((0, 0), (1, 31), (2, 32), (3, 63), (4, 100), (0, 255)):
        run, place = divmod(at, 64)
        byte = int(packed[row, 32 * run + place % 32])
        quantized = (byte & 15 if place < 32 else byte >> 4) - 8
        assert weights[row, at] == quantized * scale[row, at // group].double()


def test_what_the_format_holds_comes_back_exactly() -> None:
    quantized = torch.randint(-8, 8, (7, 3, 3, 128), generator=torch.Generator().manual_seed(0)).float()
    quantized[..., ::64] = -8  # every group of 64 uses the whole range
    quantized[..., 1::64] = 7
    weight = quantized * 2.0**-6
    packed, scale = pack_w4(weight)
    assert packed.shape == (7, 3, 3, 64)
    assert scale.shape == (7, 3, 3, 2)
    assert torch.equal(unpack_w4(packed, scale), weight)
    assert torch.equal(unpack_w4(*pack_w4(-weight)), -weight), "the longer side of the range may be either"


@pytest.mark.parametrize("group", [32, 64, 128])
def test_the_search_is_never_worse_and_29_percent_better_on_gaussian_weights(group: int) -> None:
    weight = gaussian(128, 1280)
    usual = unpack_w4(*pack_w4(weight, group, search=False))
    searched = unpack_w4(*pack_w4(weight, group))
    by_group = [(again - weight).view(-1, group).square().sum(1) for again in (usual, searched)]
    # The usual scale is not among those tried: a group in a thousand fits it by chance.
    assert (by_group[1] <= by_group[0] * 1.02).float().mean() > 0.98
    assert relative(weight, searched) < 0.73 * relative(weight, usual)
    if group == 64:
        assert relative(weight, usual) == pytest.approx(W4_GAUSSIAN_AMAX, rel=0.03)
        assert relative(weight, searched) == pytest.approx(W4_GAUSSIAN, rel=0.03)


def test_outliers_zeros_and_the_ends_of_float16() -> None:
    weight = gaussian(6, 128)
    weight[0] *= 50
    weight[1] = 0
    weight[2, 70] = 2.0
    weight[3] *= 65504 / weight[3].abs().max()
    weight[4] *= 1e-9
    packed, scale = pack_w4(weight)
    again = unpack_w4(packed, scale)
    assert scale.isfinite().all()
    assert again.half().isfinite().all(), "eight scales fit float16, as the kernel needs"
    assert relative(weight[0], again[0]) < 0.02
    assert (again[1] == 0).all()
    assert again[2, 70] == pytest.approx(2.0, rel=0.05)
    assert relative(weight[2, :64], again[2, :64]) < 0.02, "an outlier harms its own group only"
    assert relative(weight[3], again[3]) < 0.02
    assert (again[4] == 0).all(), "below what a float16 scale can express"


def test_large_weights_are_packed_in_parts() -> None:
    weight = gaussian(2100, 128)  # more than one part
    packed, scale = pack_w4(weight, search=False)
    alone = pack_w4(weight[2040:], search=False)
    assert torch.equal(packed[2040:], alone[0])
    assert torch.equal(scale[2040:], alone[1])


def test_8_bits_per_channel() -> None:
    weight = gaussian(6, 3, 3, 64)
    weight[1] = 0
    weight[2] *= 50
    quantized, scale = pack_w8(weight)
    assert quantized.dtype == torch.int8
    assert quantized.shape == weight.shape
    assert scale.shape == (6,)
    assert scale.dtype == torch.float32
    assert scale[1] == 0
    assert quantized.amin() == -127 or quantized.amax() == 127
    again = unpack_w8(quantized, scale)
    half_step = scale.double().view(-1, 1, 1, 1) / 2
    assert ((again - weight).abs() <= half_step * (1 + 1e-6)).all()


def test_what_cannot_be_packed_says_why() -> None:
    with pytest.raises(UnsupportedShapeError, match=r"weight=\(320, 3, 3, 4\).*conv_in stays float"):
        pack_w4(gaussian(320, 3, 3, 4))
    with pytest.raises(UnsupportedShapeError, match="multiple of the group"):
        pack_w4(gaussian(4, 320), 128)
    with pytest.raises(UnsupportedShapeError, match="32, 64, 128"):
        pack_w4(gaussian(4, 320), 40)
    for value in (float("nan"), float("inf"), 1e6):
        weight = gaussian(4, 64)
        weight[1, 1] = value
        with pytest.raises(KernelError, match="finite"):
            pack_w4(weight)
        with pytest.raises(KernelError, match="finite"):
            pack_w8(weight)
