from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.weight_only.op import linear_w4, linear_w8
from pocketxl.kernels.weight_only.pack import pack_w4, pack_w8, unpack_w4
from pocketxl.kernels.weight_only.plan import plan_linear_w4, plan_linear_w8
from pocketxl.kernels.weight_only.reference import linear_w4_ref, linear_w8_ref, unpack_w8

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, error, poisoned

SM89 = architecture(89)
Op = Callable[..., Tensor]
OPS: dict[int, tuple[Op, Op]] = {4: (linear_w4, linear_w4_ref), 8: (linear_w8, linear_w8_ref)}
BITS = pytest.mark.parametrize("bits", [4, 8])


def operands(bits: int, m: int, n: int, k: int, group: int = 64, seed: int = 0) -> dict[str, Tensor]:
    """As of a real layer: activations and outputs of order one."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, k, generator=random) / k**0.5
    packed, scale = pack_w4(weight, group) if bits == 4 else pack_w8(weight)
    made = {
        "x": torch.randn(m, k, generator=random).half(),
        "weight": packed,
        "scale": scale,
        "bias": torch.randn(n, generator=random).half(),
    }
    return {name: value.to(DEVICE) for name, value in made.items()}


def torch_path(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """The layer as torch computes it on weights that were dequantized before."""
    exact = unpack_w4(weight, scale, torch.float64) if weight.dtype == torch.uint8 else unpack_w8(weight, scale)
    value = torch.nn.functional.linear(x, exact.to(x.dtype), bias)
    return value if residual is None else value + residual


def poisoned_run(bits: int, given_: dict[str, Tensor], group: int = 64) -> Tensor:
    (m, k), n = given_["x"].shape, given_["weight"].shape[0]
    shape: Any = {"m": m, "n": n, "k": k, "arch": architecture_of(given_["x"])}
    shape |= {name: name in given_ for name in ("bias", "residual")}
    plan = plan_linear_w4(**shape, group=group) if bits == 4 else plan_linear_w8(**shape)
    return execute(plan, given_, allocate=poisoned)["out"]


@pytest.mark.parametrize(
    ("bits", "m", "n", "k", "group"),
    [
        (4, 1, 320, 640, 64), (4, 77, 48, 768, 64), (4, 154, 100, 192, 64), (4, 1023, 24, 64, 64), (4, 33, 72, 256, 32),
        (4, 65, 40, 256, 128), (4, 16, 96, 384, 32), (4, 300, 40, 128, 128),
        (8, 1, 320, 640, 64), (8, 77, 48, 768, 64), (8, 154, 100, 192, 64), (8, 1023, 24, 64, 64), (8, 300, 40, 64, 64),
    ],
)  # fmt: skip
def test_is_as_good_as_torch_in_float16(bits: int, m: int, n: int, k: int, group: int) -> None:
    given_ = operands(bits, m, n, k, group)
    value = poisoned_run(bits, given_, group)
    assert value.shape == (m, n)
    assert_as_good_as_torch(value, torch_path(**given_), OPS[bits][1](**given_))


@BITS
def test_small_integers_are_exact(bits: int) -> None:
    """Every nibble or byte meets its own column of x: scales of one, and sums that float16 holds."""
    random = torch.Generator().manual_seed(0)
    m, n, k = 40, 70, 128
    low, high = (-8, 8) if bits == 4 else (-127, 128)
    quantized = torch.randint(low, high, (n, k), generator=random)
    x = torch.nn.functional.one_hot(torch.randint(0, k, (m,), generator=random), k).half().to(DEVICE)
    if bits == 4:
        runs = (quantized + 8).view(n, -1, 2, 32).to(torch.uint8)
        weight, scale = (runs[:, :, 0] | runs[:, :, 1] << 4).reshape(n, -1), torch.ones(n, k // 64).half()
    else:
        weight, scale = quantized.to(torch.int8), torch.ones(n)
    value = poisoned_run(bits, {"x": x, "weight": weight.to(DEVICE), "scale": scale.to(DEVICE)})
    assert torch.equal(value, quantized.to(DEVICE).half()[:, x.argmax(1)].T)


@BITS
def test_residual_and_leading_dimensions(bits: int) -> None:
    given_ = operands(bits, 14, 48, 64)
    given_["residual"] = torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(1)).half().to(DEVICE)
    given_["x"] = given_["x"].view(2, 7, 64)
    value = OPS[bits][0](**given_)
    assert value.shape == (2, 7, 48)
    assert value.dtype == torch.float16
    assert_as_good_as_torch(value, torch_path(**given_), OPS[bits][1](**given_))
    del given_["bias"]
    assert_as_good_as_torch(OPS[bits][0](**given_), torch_path(**given_), OPS[bits][1](**given_))


@BITS
def test_outliers_in_x_and_in_the_weights(bits: int) -> None:
    given_ = operands(bits, 33, 32, 128)
    given_["x"][:, 5] *= 50
    given_["x"][7] *= 50
    given_["scale"][3] *= 50
    assert_as_good_as_torch(OPS[bits][0](**given_), torch_path(**given_), OPS[bits][1](**given_))


@BITS
def test_a_row_of_zeros_and_a_channel_of_zeros_are_the_bias(bits: int) -> None:
    given_ = operands(bits, 5, 32, 64)
    given_["x"][3] = 0
    given_["scale"][8] = 0
    value = OPS[bits][0](**given_)
    assert torch.equal(value[3], given_["bias"])
    assert (value[:, 8] == given_["bias"][8]).all()


@BITS
def test_nan_stays_in_its_row_or_column(bits: int) -> None:
    given_ = operands(bits, 5, 32, 64)
    given_["x"][2, 40] = float("nan")
    given_["scale"][9] = float("nan")
    wrong = OPS[bits][0](**given_).isnan()
    expected = torch.zeros(5, 32, dtype=torch.bool, device=DEVICE)
    expected[2], expected[:, 9] = True, True
    assert torch.equal(wrong, expected)


@BITS
def test_near_the_limit_of_float16(bits: int) -> None:
    """Sums go beyond float16 and come back; what does not come back becomes infinite, as in torch."""
    given_ = operands(bits, 4, 32, 128)
    for name in ("weight", "scale") if bits == 4 else ("weight",):
        first, second = given_[name].chunk(2, 1)
        second.copy_(first)
    given_["x"][:2], given_["x"][0, 64:] = 60000.0, -60000.0
    value, truth = OPS[bits][0](**given_), OPS[bits][1](**given_)
    assert error(value[0], truth[0]) < 128 * 60000 * 0.3 * 2**-24, "128 float32 sums of products below 0.3 * 60000"
    assert truth[1].abs().max() > 65520
    assert torch.equal(value[1].isinf(), truth[1].half().isinf())
    assert_as_good_as_torch(value[2:], torch_path(**given_)[2:], truth[2:])


@BITS
def test_two_runs_are_equal_to_the_bit(bits: int) -> None:
    given_ = operands(bits, 70, 48, 64)
    assert torch.equal(OPS[bits][0](**given_), OPS[bits][0](**given_))


@settings(max_examples=10, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    m=st.integers(1, 100),
    n=st.integers(1, 140),
    runs=st.integers(1, 4),
    group=st.sampled_from([32, 64]),
)
def test_any_shape_in_the_constraints(bits: int, m: int, n: int, runs: int, group: int) -> None:
    given_ = operands(bits, m, n, 64 * runs, group, seed=m * n * runs)
    assert_as_good_as_torch(poisoned_run(bits, given_, group), torch_path(**given_), OPS[bits][1](**given_))


@pytest.mark.gpu
@BITS
def test_bfloat16(bits: int) -> None:
    given_ = operands(bits, 77, 136, 640)
    given_ |= {name: given_[name].bfloat16() for name in ("x", "bias")}
    assert_as_good_as_torch(OPS[bits][0](**given_), torch_path(**given_), OPS[bits][1](**given_))


def test_what_it_cannot_take_says_why() -> None:
    for k, group, reason in ((4, 64, "conv_in"), (96, 32, "runs of 64"), (192, 128, "multiple of the group")):
        with pytest.raises(UnsupportedShapeError, match=rf"linear_w4 cannot take m=8, n=8, k={k}.*{reason}"):
            plan_linear_w4(m=8, n=8, k=k, group=group, arch=SM89)
    with pytest.raises(UnsupportedShapeError, match="32, 64, 128"):
        plan_linear_w4(m=8, n=8, k=640, group=80, arch=SM89)
    with pytest.raises(UnsupportedShapeError, match="float16, bfloat16"):
        plan_linear_w8(m=8, n=8, k=64, dtype="float32", arch=SM89)
    with pytest.raises(UnsupportedShapeError, match="at least one row"):
        plan_linear_w8(m=0, n=8, k=64, arch=SM89)
    given_ = operands(4, 3, 16, 128)
    with pytest.raises(UnsupportedShapeError, match=r"weight is \(16, 32\)"):
        linear_w4(**{**given_, "x": given_["x"][:, :64]})
    with pytest.raises(UnsupportedShapeError, match=r"scale \(16,\)"):
        linear_w8(given_["x"], torch.zeros(16, 128, dtype=torch.int8), given_["scale"])


def test_plans_of_a_few_rows_are_small_tiles_everywhere() -> None:
    for arch in GPU_ARCHITECTURES.values():
        for plan in (plan_linear_w4, plan_linear_w8):
            few, some, many = (plan(m=m, n=1280, k=1280, arch=arch).launches[0] for m in (2, 64, 4096))
            assert few.constants["BLOCK_M"] == 16
            assert int(some.constants["BLOCK_M"] or 0) <= 64
            assert few.grid[0] == 20
            assert many.varying == {"M"}


@BITS
def test_exports_and_compiles_with_any_number_of_tokens(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)
    op, given_ = OPS[bits][0], {name: value.cpu() for name, value in operands(bits, 14, 32, 64).items()}

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
            return op(x, weight, scale, bias) * 2

    arguments = (given_["x"].view(2, 7, 64), given_["weight"], given_["scale"], given_["bias"])
    expected = Layer()(*arguments)
    assert_as_good_as_torch(expected / 2, torch_path(*arguments), OPS[bits][1](*arguments))
    tokens = torch.export.Dim("tokens", min=2, max=4096)
    exported = torch.export.export(Layer(), arguments, dynamic_shapes=({1: tokens}, None, None, None))
    assert f"pocketxl.linear_w{bits}" in exported.graph_module.code
    assert torch.equal(exported.module()(*arguments), expected)
    assert torch.equal(torch.compile(Layer(), backend="aot_eager")(*arguments), expected)
    overload = getattr(torch.ops.pocketxl, f"linear_w{bits}")
    torch.library.opcheck(overload, arguments, test_utils=("test_schema", "test_faketensor"))
