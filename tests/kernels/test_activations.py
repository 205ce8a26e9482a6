"""The activations that every kernel has, against scipy's in float64."""

from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from scipy.special import expit, ndtr
from torch import Tensor

from pocketxl.kernels.activations import gelu, sigmoid

from ..fixtures.kernels import DEVICE

# Float32's rounding of numbers near one, in Φ and in the product, and the polynomial's own 1e-7.
OF_X = 2.5e-7
# What is smaller than that near a tail of 2^-20 still has so many digits: more than a half keeps.
OF_TAIL = 4e-4


@triton.jit  # type: ignore[untyped-decorator]
def gelu_kernel(x, out, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + place, gelu(tl.load(x + place, mask=place < size, other=0.0)), mask=place < size)


@triton.jit  # type: ignore[untyped-decorator]
def sigmoid_kernel(x, out, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + place, sigmoid(tl.load(x + place, mask=place < size, other=0.0)), mask=place < size)


def computed(x: Tensor, kernel: Any = gelu_kernel) -> np.ndarray:
    given = x.to(DEVICE)
    out = torch.empty_like(given)
    kernel[(triton.cdiv(len(x), 1024),)](given, out, len(x), BLOCK=1024)
    return out.cpu().double().numpy()


@pytest.mark.usefixtures("arithmetic")
def test_is_the_exact_gelu_with_digits_in_the_tail_too() -> None:
    x = torch.linspace(-12, 12, 100_001)
    exact = x.double().numpy() * ndtr(x.double().numpy())
    apart = np.abs(computed(x) - exact)
    assert (apart <= OF_X * np.abs(x.numpy()) + 1e-30).all()
    tail = (x.numpy() < 0) & (np.abs(exact) > 2.0**-20)
    assert (apart[tail] <= OF_TAIL * np.abs(exact[tail])).all()


def test_far_numbers_are_zero_or_themselves_and_nan_stays() -> None:
    far = torch.tensor([-65504.0, -1e30, -40.0, 40.0, 65504.0, 1e30, float("inf"), 0.0, -0.0])
    assert computed(far).tolist() == [0.0, 0.0, 0.0, 40.0, 65504.0, float(np.float32(1e30)), float("inf"), 0.0, 0.0]
    assert np.isnan(computed(torch.tensor([float("nan")]))).all()


@pytest.mark.usefixtures("arithmetic")
def test_is_the_logistic_function_with_digits_in_its_tail() -> None:
    x = torch.linspace(-60, 60, 100_001)
    exact = expit(x.double().numpy())
    # An exponent of up to 87 has the rounding of its factor in it, at the left end.
    assert (np.abs(computed(x, sigmoid_kernel) - exact) <= 1e-5 * exact).all()


def test_the_logistic_function_ends_in_nothing_and_one() -> None:
    ends = torch.tensor([-65504.0, -1e30, float("-inf"), 0.0, 65504.0, float("inf")])
    assert computed(ends, sigmoid_kernel).tolist() == [0.0, 0.0, 0.0, pytest.approx(0.5, rel=1e-6), 1.0, 1.0]
    assert np.isnan(computed(torch.tensor([float("nan")]), sigmoid_kernel)).all()
