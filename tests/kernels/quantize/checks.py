"""What every kernel that quantizes is held to."""

import torch
from torch import Tensor

from ...fixtures.kernels import DEVICE, error
from ...tolerances import FLOAT8_RELATIVE, INT8_STEPS, SCALE_RELATIVE


def spread(scale: Tensor, dims: int) -> Tensor:
    """A scale against what it scales: `dims` dimensions of one behind it."""
    return scale.reshape(scale.shape + (1,) * dims)


def int8_of(value: Tensor, dims: int) -> Tensor:
    """What torch makes of a value in its own precision: quantized over the last `dims` dimensions and back."""
    amax = value.abs().amax(tuple(range(-dims, 0)), keepdim=True).clamp_min(1e-30)
    scale = amax / 127
    return (value / scale).round().clamp(-127, 127) * scale


def assert_int8(
    made: tuple[Tensor, ...], truth: Tensor, peer: Tensor, dims: int = 1, bound: Tensor | None = None
) -> None:
    """Dtypes and shapes; the scale; every integer within half a step; no worse than twice torch's float32 path.

    `made`: q and scale. `truth`: what was quantized, in float64. `peer`: the same, computed by torch in float32.
    `dims`: how many of the last dimensions share a scale. `bound`: the magnitude that the scale is made from, where
    that is not the largest of `truth`.
    """
    q, scale = made[0], made[1]
    assert (q.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert q.shape == truth.shape
    assert scale.shape == truth.shape[: truth.dim() - dims]
    amax = truth.abs().amax(tuple(range(-dims, 0))) if bound is None else bound
    expected = amax.clamp_min(1e-30) / 127
    assert ((scale - expected).abs() <= SCALE_RELATIVE * expected).all()
    assert int(q.min()) >= -127
    steps = truth / spread(expected, dims)
    assert ((q - steps).abs() <= INT8_STEPS).all()
    assert ((q - steps.round()).abs() <= 1).all()
    if bound is None:
        assert error(q * spread(scale, dims).double(), truth) <= 2 * error(int8_of(peer.float(), dims), truth)


def assert_float8(made: tuple[Tensor, ...], truth: Tensor, dims: int = 1) -> None:
    """The same for float8: every number within half a unit of its own."""
    q, scale = made[0], made[1]
    assert (q.dtype, scale.dtype) == (torch.float8_e4m3fn, torch.float32)
    expected = truth.abs().amax(tuple(range(-dims, 0))).clamp_min(1e-30) / 448
    assert ((scale - expected).abs() <= SCALE_RELATIVE * expected).all()
    steps = truth / spread(expected, dims)
    off = (q.double() - steps).abs()
    if DEVICE == "cpu":
        # Triton's interpreter loses the carry where a number rounds up to a power of two, and cuts subnormal ones off.
        off = off.masked_fill(torch.frexp(steps).mantissa.abs() >= 1 - 2**-5, 0)
        assert (off <= FLOAT8_RELATIVE * steps.abs() + 2**-8).all()
    else:
        assert (off <= FLOAT8_RELATIVE * steps.abs() + 2**-10).all()
