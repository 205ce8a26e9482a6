"""Processors that add products of bytes in 16 bits: what saturates there, and what does not.

AVX2 and AVX512 without VNNI multiply unsigned with signed bytes by `vpmaddubsw`, which adds two products and clamps the
sum to 16 bits. Such a kernel is emulated here; the runner has weights made unsigned where there is one, and kernels for
two unsigned operands widen bytes before they multiply (`vpmaddwd`).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.export.quantize.formats import W8A8_DYNAMIC, W8A8_STATIC, W8A8_TOKEN, Kind
from pocketxl.export.quantize.quantization import StaticRange
from pocketxl.export.targets.cpu.conv_int8 import conv_int8
from pocketxl.export.targets.cpu.linear_int8 import linear_int8
from pocketxl.export.targets.cpu.linear_token import linear_token

from ....tolerances import INT8_LAYER_RELATIVE, MODEL_RELATIVE
from .lowering import Single, all_as, image_spec, l2_error, master_of, noise, run, token_spec

Ints = np.ndarray
WIDTH = 1280


def maddubs(unsigned: Ints, signed: Ints) -> Ints:
    """`vpmaddubsw`: products of uint8 and int8, neighbours added and clamped to 16 bits."""
    products = unsigned.astype(np.int64) * signed.astype(np.int64)
    sums: Ints = np.clip(products[..., 0::2] + products[..., 1::2], -(2**15), 2**15 - 1)
    return sums


def saturating(x: Ints, weight: Ints) -> Ints:
    """uint8 `[rows, in]` times int8 `[out, in]` in such a kernel."""
    return np.stack([maddubs(x, row[None]).sum(axis=-1) for row in weight], axis=-1)


def widened(x: Ints, weight: Ints, zero: int) -> Ints:
    """Two unsigned operands: bytes become 16 bits wide, sums of two products 32 (`vpmaddwd`); zero points go last."""
    products = x.astype(np.int32)[:, None] * weight.astype(np.int32)[None]
    assert products.max() <= 255 * 255
    sums = (products[..., 0::2] + products[..., 1::2]).astype(np.int32).sum(axis=-1, dtype=np.int32)
    moved: Ints = sums - zero * x.astype(np.int32).sum(axis=-1, keepdims=True)
    return moved


def extremes() -> tuple[Ints, Ints]:
    """Inputs far from a low outlier, so that they are large as uint8, and weights from end to end of int8."""
    values = np.abs(noise(8, WIDTH)) + 5
    x = np.rint(values / (values.max() / 255)).astype(np.uint8)
    weight = np.random.default_rng(1).integers(-127, 128, (32, WIDTH)).astype(np.int8)
    return x, weight


def test_int8_weights_saturate() -> None:
    x, weight = extremes()
    exact = x.astype(np.int64) @ weight.T.astype(np.int64)
    assert l2_error(saturating(x, weight), exact) > 0.05
    small = weight // 2  # 7 bits are safe, which is what ONNX Runtime's own tools offer for such processors
    assert np.array_equal(saturating(x, small), x.astype(np.int64) @ small.T.astype(np.int64))


def test_the_same_weights_as_uint8_do_not() -> None:
    x, weight = extremes()
    moved = (weight.astype(np.int16) + 128).astype(np.uint8)
    assert np.array_equal(widened(x, moved, 128), x.astype(np.int64) @ weight.T.astype(np.int64))
    ends = np.full((1, WIDTH), 255, np.uint8)
    assert np.array_equal(widened(ends, ends, 128), np.array([[WIDTH * 255 * 127]]))


def test_numbers_in_groups_do_not() -> None:
    """MLAS's kernels for `MatMulNBits`: 4 bits fit; of 8-bit weights, even and odd bytes are multiplied apart."""
    signed = np.full((1, WIDTH), 127, np.int8)
    for end in (signed, -signed):
        four = np.full((1, WIDTH), 15, np.uint8)
        assert np.array_equal(maddubs(four, end), 2 * 15 * end[:, ::2].astype(np.int64))
        eight = np.full((1, WIDTH), 255, np.uint8)
        assert not np.array_equal(maddubs(eight, end), 2 * 255 * end[:, ::2].astype(np.int64))
        even = np.arange(WIDTH) % 2 == 0
        apart = maddubs(eight * even, end) + maddubs(eight * ~even, end)
        assert np.array_equal(apart, 2 * 255 * end[:, ::2].astype(np.int64))


class Two(nn.Module):
    """Two readers of one activation."""

    def __init__(self) -> None:
        super().__init__()
        self.to_k, self.to_v = nn.Linear(64, 32), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.to_k(x) + self.to_v(x)
        return y


@pytest.mark.parametrize("layers", ["alone", "shared", "token", "conv"])
def test_onnx_runtime_makes_our_weights_unsigned_without_another_number(layers: str, tmp_path: Path) -> None:
    """Where 16 bits do not overflow both give the same; where they do, this says that the unsigned ones are right."""
    torch.manual_seed(6)
    if layers == "conv":
        module: nn.Module = Single(nn.Conv2d(6, 8, 3, padding=1))
        model, x = master_of(module, image_spec(6, 8)), noise(1, 6, 9, 7)
        static = StaticRange(
            input_scale=np.full(6, 0.03, np.float32), input_zero=120,
            output_scale=np.full(8, 0.02, np.float32), output_zero=128,
        )  # fmt: skip
        conv_int8(model.graph, all_as(Kind.CONV, W8A8_STATIC, ranges={"layer": static}))
        exact = F.conv2d(torch.from_numpy(x), module.layer.weight, module.layer.bias, padding=1).detach().numpy()  # type: ignore[arg-type, union-attr]
    else:
        module = Two() if layers == "shared" else Single(nn.Linear(64, 32))
        model, x = master_of(module, token_spec(64, 32)), noise(1, 9, 64) + 0.5
        format = W8A8_TOKEN if layers == "token" else W8A8_DYNAMIC
        (linear_token if layers == "token" else linear_int8)(model.graph, all_as(Kind.LINEAR, format))
        exact = module(torch.from_numpy(x)).detach().numpy()
    unsigned = run(model, tmp_path, {"x": x}, unsigned=True)
    assert l2_error(unsigned, exact) < INT8_LAYER_RELATIVE
    from pocketxl.engine.runners.processor import adds_in_16_bits

    if not adds_in_16_bits():
        assert l2_error(unsigned, run(model, tmp_path, {"x": x}, unsigned=False)) < MODEL_RELATIVE
