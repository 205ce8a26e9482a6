"""4-bit weights by 8-bit activations: exact sums of groups, and as good as torch on what they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.four_bits.op import linear_w4a8
from pocketxl.kernels.four_bits.plan import plan_linear_w4a8
from pocketxl.kernels.four_bits.reference import linear_w4a8_ref
from pocketxl.kernels.quantize.op import quantize_per_token
from pocketxl.kernels.weight_only.op import linear_w4
from pocketxl.kernels.weight_only.pack import pack_w4, unpack_w4

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned


def operands(m: int, n: int, k: int, seed: int = 0) -> dict[str, Tensor]:
    """Every byte that either operand may have; scales as of a real layer, of both signs: outputs of order one."""
    random = torch.Generator().manual_seed(seed)
    made = {
        "x": torch.randint(-127, 128, (m, k), generator=random, dtype=torch.int8),
        "x_scale": torch.rand(m, generator=random) * 0.02,
        "weight": torch.randint(0, 256, (n, k // 2), generator=random, dtype=torch.uint8),
        "weight_scale": ((torch.rand(n, k // 64, generator=random) - 0.5) * 0.4 / k**0.5).half(),
        "bias": torch.randn(n, generator=random).half(),
    }
    return {name: value.to(DEVICE) for name, value in made.items()}


def torch_path(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    """The same layer as torch computes it in float16, on the dequantized operands."""
    filters = unpack_w4(weight, weight_scale).half()
    return torch.nn.functional.linear((x.float() * x_scale[:, None]).half(), filters, bias)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 320, 640), (77, 384, 768), (1100, 136, 128), (130, 72, 64)])
def test_is_as_good_as_torch_in_float16(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k)
    value = linear_w4a8(**given_)
    assert value.shape == (m, n)
    assert value.dtype == torch.float16
    assert_as_good_as_torch(value, torch_path(**given_), linear_w4a8_ref(**given_))


@settings(max_examples=10, deadline=None)
@given(m=st.integers(1, 140), n=st.integers(1, 140), k=st.integers(1, 6).map(lambda runs: 64 * runs))
def test_any_shape_is_exact_and_every_element_is_written(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k, seed=m * n * k)
    ones = {**given_, "x_scale": torch.ones(m, device=DEVICE), "weight_scale": torch.ones(n, k // 64).half().to(DEVICE)}
    del ones["bias"]
    plan = plan_linear_w4a8(m=m, n=n, k=k, arch=architecture_of(ones["x"]), out_dtype="float32", bias=False)
    value = execute(plan, ones, allocate=poisoned)["out"]
    assert torch.equal(value.double(), linear_w4a8_ref(**ones))


@pytest.mark.parametrize(("number", "nibbles"), [(-128, 0x00), (127, 0xFF), (-128, 0xFF)])
def test_the_largest_sums_of_a_group_are_exact(number: int, nibbles: int) -> None:
    m, n, k = 2, 16, 256
    x = torch.full((m, k), number, dtype=torch.int8, device=DEVICE)
    weight = torch.full((n, k // 2), nibbles, dtype=torch.uint8, device=DEVICE)
    scale = torch.ones(n, k // 64, device=DEVICE).half()
    value = linear_w4a8(x, torch.ones(m, device=DEVICE), weight, scale, out_dtype=torch.float32)
    assert (value == k * number * (nibbles % 16 - 8)).all()


def test_it_is_the_weight_only_layer_on_an_input_in_eight_bits() -> None:
    random = torch.Generator().manual_seed(0)
    weight, scale = pack_w4(torch.randn(80, 192, generator=random) / 14)
    x = torch.randn(2, 7, 192, generator=random)
    x[..., 5] *= 40  # a channel that decides every token's range
    residual = torch.randn(2, 7, 80, generator=random).half()
    q, x_scale = quantize_per_token(x.half().to(DEVICE))
    on_device = [tensor.to(DEVICE) for tensor in (weight, scale, residual)]
    found = linear_w4a8(q, x_scale, on_device[0], on_device[1], None, on_device[2])
    wide = linear_w4((q.float() * x_scale[..., None]).half(), on_device[0], on_device[1], None, on_device[2])
    assert_as_good_as_torch(found, wide, linear_w4a8_ref(q, x_scale, on_device[0], on_device[1], None, on_device[2]))


def test_nan_in_a_scale_stays_in_its_row_or_column() -> None:
    given_ = operands(5, 32, 128)
    given_["x_scale"][2] = float("nan")
    given_["weight_scale"][9, 1] = float("nan")
    wrong = linear_w4a8(**given_).isnan()
    expected = torch.zeros(5, 32, dtype=torch.bool, device=DEVICE)
    expected[2], expected[:, 9] = True, True
    assert torch.equal(wrong, expected)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("weight", torch.zeros(32, 128, dtype=torch.uint8)),
        ("weight_scale", torch.zeros(32, 2)),
        ("weight_scale", torch.zeros(32, 4).half()),
        ("x_scale", torch.zeros(6)),
        ("bias", torch.zeros(31).half()),
    ],
)
def test_operands_that_do_not_fit_are_refused_before_memory_is_read(name: str, other: Tensor) -> None:
    given_ = {**operands(5, 32, 128), name: other.to(DEVICE)}
    with pytest.raises(UnsupportedShapeError, match=f"{name}=.*the other operands call for"):
        linear_w4a8(**given_)


def test_what_no_kernel_takes_is_refused_by_name() -> None:
    for shape, reason in (
        ({"m": 8, "n": 8, "k": 96}, "runs of 64"),
        ({"m": 0, "n": 8, "k": 64}, "at least one row"),
        ({"m": 8, "n": 8, "k": 64, "out_dtype": "float64"}, "the output is one of float16"),
    ):
        with pytest.raises(UnsupportedShapeError, match=f"linear_w4a8 cannot take.*{reason}"):
            plan_linear_w4a8(arch=architecture(89), **shape)


def test_compilers_see_the_op() -> None:
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
            made: Tensor = linear_w4a8(x, x_scale, weight, weight_scale, bias)
            return made

    exported = torch.export.export(Layer(), tuple(operands(6, 32, 64).values()))
    assert "pocketxl.linear_w4a8.default" in {str(node.target) for node in exported.graph.nodes}
