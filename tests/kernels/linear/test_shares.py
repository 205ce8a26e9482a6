"""Products whose last round of tiles is shared out among a GPU's multiprocessors."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.execute import execute
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.linear.plan import plan_linear_w8a8
from pocketxl.kernels.linear.reference import integer_product
from pocketxl.kernels.linear.shares import LEAST_STEPS, Shares, share_out

from ...fixtures.kernels import DEVICE, poisoned

TILE = 128 * 128


def shares(tiles: int, depth: int, multiprocessors: int, sm: int = 89) -> Shares:
    return share_out(tiles=tiles, area=TILE, steps=depth // 64, depth=depth, arch=architecture(sm, multiprocessors))


def test_the_last_round_of_a_deep_product_is_shared_out() -> None:
    """Two rows at 1024 x 1024 on a 4090: 160 tiles of 128 x 128 on 128 multiprocessors, behind GEGLU 5120 deep."""
    assert shares(160, 5120, 128) == Shares(whole=128, sharers=128)
    assert shares(80, 5120, 128) == Shares(whole=0, sharers=128)
    assert shares(160, 1280, 128) == Shares(whole=160), "a shallow one is done before its sums are added"
    assert shares(128, 5120, 128) == Shares(whole=128), "nothing is left"
    assert shares(40, 2560, 82).sharers == 80
    assert shares(40, 2560, 82, sm=86).sharers == 0, "a 3090's cache does not hold the sums"
    assert shares(160, 5120, 28) == Shares(whole=160), "one of six rounds of a 3060 is half full: too little to win"


@given(
    tiles=st.integers(1, 3000), steps=st.integers(1, 300), area=st.sampled_from((32 * 64, 64 * 128, TILE)),
    multiprocessors=st.integers(1, 300), sm=st.sampled_from(sorted(GPU_ARCHITECTURES)),
)  # fmt: skip
def test_every_step_has_one_sharer_and_a_sharer_two_tiles_at_most(
    tiles: int, steps: int, area: int, multiprocessors: int, sm: int
) -> None:
    made = share_out(tiles=tiles, area=area, steps=steps, depth=64 * steps, arch=architecture(sm, multiprocessors))
    left = tiles - made.whole
    assert made.whole % multiprocessors == 0 or not left
    assert bool(left) == bool(made.sharers)
    if left:
        assert left < made.sharers <= multiprocessors
        edges = [sharer * left * steps // made.sharers for sharer in range(made.sharers + 1)]
        for begin, end in pairwise(edges):
            assert LEAST_STEPS <= end - begin <= steps


def plan(m: int, n: int, k: int, multiprocessors: int, *, plain: bool) -> LaunchPlan:
    arch = architecture(89, multiprocessors)
    return plan_linear_w8a8(m=m, n=n, k=k, arch=arch, residual=not plain, bias=not plain, static=plain)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "k", "multiprocessors", "whole", "sharers"),
    [
        (70, 130, 8192, 6, 0, 6),  # six share four tiles: some have parts of two
        (33, 40, 8192, 12, 0, 12),  # six have a tile
        (70, 130, 8192, 3, 3, 3),  # one of four is left
        (520, 130, 4096, 9, 9, 8),  # tiles of 128 x 128, the last with ten columns, and eight rows that are not there
        (70, 130, 8176, 6, 0, 6),  # the last step has less than its depth
    ],
)
def test_shared_sums_are_those_of_whole_tiles_to_the_bit(
    m: int, n: int, k: int, multiprocessors: int, whole: int, sharers: int, plain: bool
) -> None:
    random = torch.Generator().manual_seed(m)
    given_ = {
        "x": torch.randint(-127, 128, (m, k), generator=random, dtype=torch.int8),
        "x_scale": torch.rand(m, generator=random) * 0.02,
        "weight": torch.randint(-127, 128, (n, k), generator=random, dtype=torch.int8),
        "weight_scale": torch.rand(n, generator=random) * 0.02 / k**0.5,
        "bias": torch.randn(n, generator=random).half(),
        "residual": torch.randn(m, n, generator=random).half(),
    }
    made, alone = plan(m, n, k, multiprocessors, plain=plain), plan(m, n, k, 1, plain=plain)
    asked = {name: made.launches[0].arguments[name] for name in ("whole", "sharers")}
    assert asked == {"whole": whole, "sharers": sharers}
    assert len(alone.launches) == 1
    inputs = {name: given_[name].to(DEVICE) for name in made.inputs}
    found = execute(made, inputs, allocate=poisoned)["out"]
    assert torch.equal(found, execute(alone, inputs, allocate=poisoned)["out"])
    exact = integer_product(given_["x"], given_["weight"]) * given_["weight_scale"].double()
    if not plain:
        exact = exact * given_["x_scale"].double()[:, None] + given_["bias"].double() + given_["residual"].double()
    assert torch.allclose(found.cpu().double(), exact, rtol=2**-10, atol=2**-10)


def test_one_binary_serves_both() -> None:
    made, alone = plan(70, 130, 8192, 6, plain=False), plan(70, 130, 8192, 1, plain=False)
    assert made.variants[0] == alone.variants[0]


def test_sums_of_float8_are_not_shared_out() -> None:
    """Their order would be another alone and in a batch."""
    made = plan_linear_w8a8(m=70, n=130, k=8192, arch=architecture(89, 6), dtype="float8_e4m3fn")
    assert len(made.launches) == 1
