from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedArchitectureError, UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, dtype_name, execute
from pocketxl.kernels.linear.op import geglu_linear_w8a8, linear_w8a8
from pocketxl.kernels.linear.plan import MAX_K, plan_geglu_linear_w8a8, plan_linear_w8a8
from pocketxl.kernels.linear.reference import geglu_linear_w8a8_ref, integer_product, linear_w8a8_ref

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned
from ..steps import assert_steps

SM89 = architecture(89)


def operands(m: int, n: int, k: int, dtype: torch.dtype = torch.int8, seed: int = 0) -> dict[str, Tensor]:
    """Full-range operands, scales as of a real layer: outputs of order one."""
    random = torch.Generator().manual_seed(seed)
    if dtype == torch.int8:
        x = torch.randint(-127, 128, (m, k), generator=random, dtype=torch.int8)
        weight = torch.randint(-127, 128, (n, k), generator=random, dtype=torch.int8)
    else:
        x = (torch.randn(m, k, generator=random) * 100).clamp(-448, 448).to(dtype)
        weight = (torch.randn(n, k, generator=random) * 100).clamp(-448, 448).to(dtype)
    made = {
        "x": x,
        "x_scale": torch.rand(m, generator=random) * 0.02,
        "weight": weight,
        "weight_scale": torch.rand(n, generator=random) * 0.02 / k**0.5,
        "bias": torch.randn(n, generator=random).half(),
    }
    return {name: value.to(DEVICE) for name, value in made.items()}


def torch_path(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    """The same layer as torch computes it in float16, on the dequantized operands."""
    return torch.nn.functional.linear(
        (x.float() * x_scale[:, None]).half(), (weight.float() * weight_scale[:, None]).half(), bias
    )


@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 320, 640), (77, 384, 768), (154, 640, 176), (1023, 64, 16), (130, 72, 80), (513, 136, 144)]
)
def test_is_as_good_as_torch_in_float16(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k)
    value = linear_w8a8(**given_)
    assert value.shape == (m, n)
    assert value.dtype == torch.float16
    assert_as_good_as_torch(value, torch_path(**given_), linear_w8a8_ref(**given_))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 16, 16), (77, 80, 208), (160, 130, 640)])
def test_integer_sums_are_exact_and_every_element_is_written(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k)
    ones = {**given_, "x_scale": torch.ones(m, device=DEVICE), "weight_scale": torch.ones(n, device=DEVICE)}
    del ones["bias"]
    plan = plan_linear_w8a8(m=m, n=n, k=k, arch=architecture_of(ones["x"]), out_dtype="float32", bias=False)
    value = execute(plan, ones, allocate=poisoned)["out"]
    assert torch.equal(value.double(), integer_product(ones["x"], ones["weight"]))


def test_the_largest_products_do_not_wrap() -> None:
    m, n, k = 2, 16, 4096
    x = torch.full((m, k), -128, dtype=torch.int8, device=DEVICE)
    weight = torch.full((n, k), -128, dtype=torch.int8, device=DEVICE)
    ones = torch.ones(n, device=DEVICE)
    value = linear_w8a8(x, ones[:m], weight, ones, out_dtype=torch.float32)
    assert (value == k * 128 * 128).all()


def test_residual_and_leading_dimensions() -> None:
    given_ = operands(14, 48, 64)
    residual = torch.randn(2, 7, 48).half().to(DEVICE)
    shaped = {**given_, "x": given_["x"].view(2, 7, 64), "x_scale": given_["x_scale"].view(2, 7)}
    value = linear_w8a8(**shaped, residual=residual)
    assert value.shape == (2, 7, 48)
    peer = torch_path(**given_).view(2, 7, 48) + residual
    assert_as_good_as_torch(value, peer, linear_w8a8_ref(**shaped, residual=residual))


def test_an_outlier_channel_keeps_the_others_exact() -> None:
    given_ = operands(33, 32, 64)
    given_["weight_scale"][5] *= 50
    given_["x_scale"][7] *= 50
    assert_as_good_as_torch(linear_w8a8(**given_), torch_path(**given_), linear_w8a8_ref(**given_))


def test_a_row_of_zeros_is_the_bias() -> None:
    given_ = operands(5, 32, 64)
    given_["x"][3] = 0
    given_["x_scale"][3] = 0
    assert torch.equal(linear_w8a8(**given_)[3], given_["bias"])


def test_nan_in_a_scale_stays_in_its_row_or_column() -> None:
    given_ = operands(5, 32, 64)
    given_["x_scale"][2] = float("nan")
    given_["weight_scale"][9] = float("nan")
    wrong = linear_w8a8(**given_).isnan()
    expected = torch.zeros(5, 32, dtype=torch.bool, device=DEVICE)
    expected[2], expected[:, 9] = True, True
    assert torch.equal(wrong, expected)


def test_what_float16_cannot_hold_becomes_infinite_and_bfloat16_holds_it() -> None:
    given_ = operands(3, 16, 64)
    given_["x_scale"] = torch.full((3,), 1e4, device=DEVICE)
    assert linear_w8a8(**given_).isinf().any()
    wide = linear_w8a8(**{**given_, "bias": given_["bias"].bfloat16()}, out_dtype=torch.bfloat16)
    assert wide.isfinite().all()


@pytest.mark.parametrize(("m", "n", "k"), [(33, 48, 64), (70, 32, 160)])
def test_float8_behind_the_same_signature(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k, torch.float8_e4m3fn)
    assert_as_good_as_torch(linear_w8a8(**given_), torch_path(**given_), linear_w8a8_ref(**given_))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 320, 640), (77, 96, 64), (130, 72, 80)])
def test_geglu_is_as_good_as_torch_in_float16(m: int, n: int, k: int) -> None:
    given_ = operands(m, 2 * n, k)
    plan = plan_geglu_linear_w8a8(m=m, n=n, k=k, arch=architecture_of(given_["x"]))
    value = execute(plan, given_, allocate=poisoned)["out"]
    both = torch_path(**given_)
    peer = both[:, :n] * torch.nn.functional.gelu(both[:, n:])
    assert_as_good_as_torch(value, peer, geglu_linear_w8a8_ref(**given_))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("weight", torch.zeros(32, 80, dtype=torch.int8)),
        ("x_scale", torch.zeros(6)),
        ("bias", torch.zeros(31).half()),
        ("bias", torch.zeros(32)),
    ],
)
def test_operands_that_do_not_fit_are_refused_before_memory_is_read(name: str, other: Tensor) -> None:
    given_ = {**operands(5, 32, 64), name: other.to(DEVICE)}
    with pytest.raises(UnsupportedShapeError, match=f"{name}=.*the other operands call for"):
        linear_w8a8(**given_)


def test_two_runs_are_equal_to_the_bit() -> None:
    given_ = operands(70, 48, 64)
    assert torch.equal(linear_w8a8(**given_), linear_w8a8(**given_))


@settings(max_examples=12, deadline=None)
@given(m=st.integers(1, 140), n=st.integers(1, 140), k=st.integers(1, 12).map(lambda part: 16 * part))
def test_any_shape_in_the_constraints_is_exact(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k, seed=m * n * k)
    ones = {**given_, "x_scale": torch.ones(m, device=DEVICE), "weight_scale": torch.ones(n, device=DEVICE)}
    del ones["bias"]
    plan = plan_linear_w8a8(m=m, n=n, k=k, arch=architecture_of(ones["x"]), out_dtype="float32", bias=False)
    value = execute(plan, ones, allocate=poisoned)["out"]
    assert torch.equal(value.double(), integer_product(ones["x"], ones["weight"]))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"m": 8, "n": 8, "k": 24}, "k=24.*multiple of 16"),
        ({"m": 8, "n": 8, "k": MAX_K + 16 - MAX_K % 16}, "exact in 32 bits"),
        ({"m": 0, "n": 8, "k": 16}, "m=0.*at least one row"),
        ({"m": 8, "n": 8, "k": 16, "dtype": "uint8"}, "dtype=uint8.*int8 or float8_e4m3fn"),
        ({"m": 8, "n": 8, "k": 16, "out_dtype": "int8"}, "out_dtype=int8.*float16"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, object], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_linear_w8a8(arch=SM89, **shape)  # type: ignore[arg-type]


def test_float8_is_refused_before_sm_89_and_turing_is_sent_to_tensorrt() -> None:
    with pytest.raises(UnsupportedShapeError, match=r"sm=86.*sm_89"):
        plan_linear_w8a8(m=8, n=8, k=16, arch=architecture(86), dtype="float8_e4m3fn")
    with pytest.raises(UnsupportedArchitectureError, match="rtx-sm75"):
        architecture(75)


def test_export_and_compile_take_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
            gated: Tensor = geglu_linear_w8a8(x, x_scale, weight, weight_scale, bias)
            plain: Tensor = linear_w8a8(x, x_scale, weight, weight_scale, bias)
            return plain[..., : gated.shape[-1]] + gated

    given_ = {name: value.cpu() for name, value in operands(6, 32, 16).items()}
    expected = Block()(**given_)
    exported = torch.export.export(Block(), (), given_)
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert {"pocketxl.linear_w8a8.default", "pocketxl.geglu_linear_w8a8.default"} <= called
    assert torch.equal(exported.module()(**given_), expected)
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**given_), expected)


def test_names_of_dtypes_are_torchs() -> None:
    assert [dtype_name(d) for d in (torch.int8, torch.float8_e4m3fn)] == ["int8", "float8_e4m3fn"]


@pytest.mark.parametrize(("m", "n", "k"), [(1, 64, 64), (77, 80, 208), (513, 136, 144)])
def test_one_scale_of_all_tokens_is_in_the_weights(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k)
    given_["x_scale"] = torch.ones(m, device=DEVICE)
    residual = torch.randn(m, n, device=DEVICE).half()
    bare: dict[str, Any] = {**given_, "x_scale": None}
    value = linear_w8a8(**bare, residual=residual)
    assert torch.equal(value, linear_w8a8(**given_, residual=residual))
    assert_as_good_as_torch(value, torch_path(**given_) + residual, linear_w8a8_ref(**bare, residual=residual))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 320, 640), (77, 96, 64), (130, 72, 80)])
def test_geglu_in_8_bits(m: int, n: int, k: int) -> None:
    given_ = operands(m, 2 * n, k)
    inverse = torch.linspace(20, 3000, n, device=DEVICE)
    plan = plan_geglu_linear_w8a8(m=m, n=n, k=k, arch=architecture_of(given_["x"]), quantized=True)
    value = execute(plan, {**given_, "inverse": inverse}, allocate=poisoned)["out"]
    truth = geglu_linear_w8a8_ref(**given_, inverse=inverse)
    assert_steps(value, truth)
    assert torch.equal(value, geglu_linear_w8a8(**given_, inverse=inverse))
    wide = {name: x.cpu() for name, x in given_.items()}
    assert torch.equal(geglu_linear_w8a8_ref(**wide, inverse=inverse.cpu()).to(torch.int8), truth.cpu().to(torch.int8))
