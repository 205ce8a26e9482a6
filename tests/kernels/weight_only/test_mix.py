from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings
from pocketxl.kernels.errors import KernelError
from pocketxl.kernels.weight_only.mix import Bits, LayerCost, choose_bits

EITHER: tuple[Bits, Bits] = (4, 8)


def cost(name: str, parameters: int, error_4: float, error_8: float) -> LayerCost:
    return LayerCost(name=name, parameters=parameters, error_4=error_4, error_8=error_8)


def test_the_most_error_saved_per_byte_comes_first() -> None:
    layers = [cost("large", 6400, 9.0, 0.0), cost("small", 640, 2.0, 0.5), cost("tiny", 64, 0.01, 0.0)]
    four = sum(layer.size_bytes(4) for layer in layers)
    assert four == 7104 * 17 // 32
    mix = choose_bits(layers, four + 3000)
    # 1.5 less error for 300 bytes is better than 9 for 3000, which then no longer fit and are passed over.
    assert mix.bits == {"large": 4, "small": 8, "tiny": 8}
    assert mix.size_bytes == four + 300 + 30
    assert mix.error == pytest.approx(9.0 + 0.5)
    assert choose_bits(layers, 10**6).bits == dict.fromkeys(mix.bits, 8)


def test_eight_bits_that_do_not_help_are_not_bought() -> None:
    layers = [cost("same", 640, 1.0, 1.0), cost("worse", 640, 1.0, 2.0)]
    assert choose_bits(layers, 10**6).bits == {"same": 4, "worse": 4}


def test_scales_are_counted() -> None:
    layer = LayerCost(name="layer", parameters=64 * 128, channels=64, error_4=1, error_8=0)
    assert layer.size_bytes(4) == 64 * 64 + 64 * 2 * 2
    assert layer.size_bytes(4, group=32) == 64 * 64 + 64 * 4 * 2
    assert layer.size_bytes(8) == 64 * 128 + 64 * 4


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(KernelError, match="340 bytes, the budget is 339"):
        choose_bits([cost("layer", 640, 1, 0)], 339)
    with pytest.raises(KernelError, match="same name"):
        choose_bits([cost("layer", 640, 1, 0)] * 2, 10**6)
    with pytest.raises(KernelError, match="layer: errors nan"):
        choose_bits([cost("layer", 640, float("nan"), 0)], 10**6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6),
    st.integers(0, 2500),
)
def test_no_choice_is_better_by_more_than_one_layer(rows: list[tuple[int, int, int]], spare: int) -> None:
    layers = [cost(str(i), 64 * size, four, eight) for i, (size, four, eight) in enumerate(rows)]
    budget = sum(layer.size_bytes(4) for layer in layers) + spare
    mix = choose_bits(layers, budget)
    assert mix.size_bytes == sum(layer.size_bytes(mix.bits[layer.name]) for layer in layers) <= budget
    best = min(
        sum(layer.error_8 if bits == 8 else layer.error_4 for layer, bits in zip(layers, choice, strict=True))
        for choice in product(EITHER, repeat=len(layers))
        if sum(layer.size_bytes(bits) for layer, bits in zip(layers, choice, strict=True)) <= budget
    )
    assert best <= mix.error <= best + max(max(layer.error_4 - layer.error_8, 0) for layer in layers)


def looped(kind: str) -> tuple[list[LayerCost], int, int]:
    """The linears and convolutions that run in every step, bytes of all else there in 16 bits, and all parameters."""
    architecture = read_settings(BUNDLED / kind).architecture.unet
    with torch.device("meta"):
        unet, conditioner = UNet(architecture), Conditioner(architecture)
    layers = [
        cost(f"{kind}.{name}", layer.weight.numel(), 1.0, 0.1)
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name not in ("conv_in", "conv_out")
    ]
    inside = sum(parameter.numel() for parameter in unet.parameters())
    rest = 2 * (inside - sum(layer.parameters for layer in layers))
    return layers, rest, inside + sum(parameter.numel() for parameter in conditioner.parameters())


def test_base_and_refiner_in_4_bits_take_2_3_gigabytes() -> None:
    """What stays in memory for the loop, from the public configurations: keys and values are computed before it."""
    (base, base_rest, base_all), (refiner, refiner_rest, refiner_all) = looped("base"), looped("refiner")
    assert base_all == 2_567_463_684
    assert refiner_all == pytest.approx(2.26e9, rel=0.01)
    both = base + refiner
    for group, gigabytes in ((128, 2.21), (64, 2.28), (32, 2.41)):
        four = sum(layer.size_bytes(4, group) for layer in both) + base_rest + refiner_rest
        assert four / 1e9 == pytest.approx(gigabytes, abs=0.005)
    mix = choose_bits(both, 2_600_000_000)
    assert 2_590_000_000 < mix.size_bytes <= 2_600_000_000
    assert set(mix.bits.values()) == {4, 8}
