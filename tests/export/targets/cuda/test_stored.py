"""Parameters in the layouts that our kernels read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketxl.engine.specs import Role
from pocketxl.export.quantize.formats import FLOAT16, W4_HALVES, W8, W8A8_PICTURE, W8A8_TOKEN
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.cuda.stored import Packer, Parameter, Part, Weight
from pocketxl.kernels.weight_only.pack import unpack_w4

NUMBERS = Quantization(recipe=RECIPES["int8"], role=Role.UNET)


class Source:
    """A state dict that counts what is read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.read: list[str] = []

    def tensor(self, name: str) -> Tensor:
        self.read.append(name)
        return self.tensors[name]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def packed(source: Source, weight: Weight, part: Any) -> Any:
    return Packer(source, NUMBERS).array(Part(weight=weight, part=part))


def both(packer: Packer, weight: Weight) -> tuple[Any, Any]:
    """Its numbers and their scales."""
    return packer.array(Part(weight=weight, part="numbers")), packer.array(Part(weight=weight, part="scale"))


def test_layers_that_are_multiplied_at_once_stand_below_each_other() -> None:
    source = Source({"q.weight": random(32, 64), "k.weight": random(16, 64, seed=1)})
    weight = Weight(layers=("q", "k"), format=W8A8_TOKEN)
    packer = Packer(source, NUMBERS)
    numbers, scale = both(packer, weight)
    truth = torch.cat([source.tensors["q.weight"], source.tensors["k.weight"]]).numpy()
    assert (numbers.dtype, numbers.shape, scale.dtype, scale.shape) == (np.int8, (48, 64), np.float32, (48,))
    assert np.abs(numbers * scale[:, None] - truth).max() <= scale.max() / 2 * 1.001
    assert source.read == ["q.weight", "k.weight"], "a weight is read once for its numbers and scales"


def test_a_convolution_s_channels_come_last_and_are_padded_with_zeros() -> None:
    source = Source({"conv.weight": random(20, 4, 3, 3), "conv.bias": random(20)})
    weight = Weight(layers=("conv",), format=FLOAT16, picture=True, rows=32, columns=(4, 0))
    numbers, bias = packed(source, weight, "numbers"), packed(source, weight, "bias")
    assert (numbers.shape, bias.shape) == ((32, 3, 3, 16), (32,))
    truth = source.tensors["conv.weight"].permute(0, 2, 3, 1).numpy().astype(np.float16)
    assert np.array_equal(numbers[:20, :, :, :4], truth)
    assert not numbers[20:].any()
    assert not numbers[..., 4:].any()
    assert not bias[20:].any()


def test_two_pictures_side_by_side_are_padded_each() -> None:
    source = Source({"conv.weight": random(16, 24, 1, 1)})
    weight = Weight(layers=("conv",), format=W8A8_PICTURE, picture=True, rows=16, columns=(20, 4))
    numbers = packed(source, weight, "numbers")
    assert numbers.shape == (16, 1, 1, 48)
    assert numbers[..., :20].any()
    assert not numbers[..., 20:32].any()
    assert numbers[..., 32:36].any()
    assert not numbers[..., 36:].any()


def test_eight_bits_of_a_convolution_have_a_scale_for_each_output_channel() -> None:
    source = Source({"conv.weight": random(16, 32, 3, 3)})
    weight = Weight(layers=("conv",), format=W8, picture=True, rows=16, columns=(32, 0))
    packer = Packer(source, NUMBERS)
    numbers, scale = both(packer, weight)
    truth = source.tensors["conv.weight"].permute(0, 2, 3, 1).numpy()
    assert np.abs(numbers * scale[:, None, None, None] - truth).max() <= scale.max() / 2 * 1.001


@pytest.mark.parametrize("picture", [False, True])
def test_four_bits_are_those_of_the_kernels(picture: bool) -> None:
    shape = (16, 64, 3, 3) if picture else (16, 128)
    source = Source({"layer.weight": random(*shape)})
    weight = Weight(layers=("layer",), format=W4_HALVES, picture=picture, rows=16 * picture, columns=(64, 0))
    packer = Packer(source, NUMBERS)
    numbers, scale = map(torch.from_numpy, both(packer, weight))
    truth = source.tensors["layer.weight"]
    truth = truth.permute(0, 2, 3, 1) if picture else truth
    off = (unpack_w4(numbers, scale) - truth).norm() / truth.norm()
    assert off < 0.12, "4 bits in groups of 64 are off by 9 % on normal weights"


def test_norms_are_halves() -> None:
    source = Source({"norm.weight": random(32)})
    found = Packer(source, NUMBERS).array(Parameter(name="norm.weight"))
    assert np.array_equal(found, source.tensors["norm.weight"].numpy().astype(np.float16))
