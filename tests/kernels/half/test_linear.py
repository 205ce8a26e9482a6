from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, Architecture, architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.half.op import linear_f16
from pocketxl.kernels.half.plan import ACTIVATIONS, plan_linear_f16
from pocketxl.kernels.half.reference import activation_ref, linear_f16_ref

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned

SM89 = architecture(89)


def operands(m: int, n: int, k: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Outputs of order one."""
    random = torch.Generator().manual_seed(seed)
    made = {
        "x": torch.randn(m, k, generator=random),
        "weight": torch.randn(n, k, generator=random) / k**0.5,
        "bias": torch.randn(n, generator=random),
        "residual": torch.randn(m, n, generator=random),
    }
    return {name: value.half().to(DEVICE) for name, value in made.items()}


def torch_path(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """The same layer as torch computes it in float16."""
    value = activation_ref(functional.linear(x, weight, bias), activation)
    return value if residual is None else value + residual


def check(given_: dict[str, Tensor], arch: Architecture, activation: str | None = None) -> None:
    """Poisoned memory, and at most twice the error of torch's linear."""
    (m, k), n = given_["x"].shape, given_["weight"].shape[0]
    residual = "residual" in given_
    plan = plan_linear_f16(m=m, n=n, k=k, arch=arch, residual=residual, activation=activation)
    value = execute(plan, given_, allocate=poisoned)["out"]
    truth = linear_f16_ref(**given_, activation=activation)
    assert_as_good_as_torch(value, torch_path(**given_, activation=activation), truth)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 16, 16), (77, 130, 64), (70, 48, 336), (5, 81, 81)])
def test_is_as_good_as_torch(m: int, n: int, k: int, activation: str | None) -> None:
    given_ = operands(m, n, k)
    check(given_, architecture_of(given_["x"]), activation)
    del given_["residual"]
    check(given_, architecture_of(given_["x"]), activation)


@pytest.mark.parametrize("arch", GPU_ARCHITECTURES.values() if DEVICE == "cpu" else [None])
@pytest.mark.parametrize("m", [3, 100, 520])
def test_the_tiles_of_every_architecture(arch: Architecture | None, m: int) -> None:
    given_ = operands(m, 144, 80)
    check(given_, arch or architecture_of(given_["x"]), "gelu")


@settings(max_examples=8, deadline=None)
@given(m=st.integers(1, 80), n=st.integers(1, 80), k=st.integers(1, 150))
def test_any_shape(m: int, n: int, k: int) -> None:
    given_ = operands(m, n, k, seed=m * n * k)
    check(given_, architecture_of(given_["x"]))


def test_whole_numbers_are_summed_exactly_into_float32() -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = (torch.randint(-8, 9, shape, generator=random).half().to(DEVICE) for shape in ((9, 4096), (24, 4096)))
    value = linear_f16(x, weight, out_dtype=torch.float32)
    assert value.dtype == torch.float32
    assert torch.equal(value.double(), x.double() @ weight.double().mT)


def test_leading_dimensions_and_two_runs_equal_to_the_bit() -> None:
    given_ = operands(12, 32, 48)
    flat = linear_f16(**given_, activation="silu")
    shaped = {**given_, "x": given_["x"].view(2, 6, 48), "residual": given_["residual"].view(2, 6, 32)}
    assert torch.equal(linear_f16(**shaped, activation="silu"), flat.view(2, 6, 32))


def test_nan_stays_in_its_row() -> None:
    given_ = operands(5, 32, 48)
    given_["x"][2, 40] = float("nan")
    assert linear_f16(**given_, activation="quick_gelu").isnan().all(-1).tolist() == [False, False, True, False, False]


def test_large_values_pass_the_activations_unharmed() -> None:
    x = torch.tensor([[-3e4, -60.0, 60.0, 3e4]], dtype=torch.float16, device=DEVICE)
    eye = torch.eye(4, dtype=torch.float16, device=DEVICE)
    for activation in ("gelu", "quick_gelu", "silu"):
        value = linear_f16(x, eye, activation=activation)
        assert torch.equal(value, torch.tensor([[0, 0, 60, 3e4]], dtype=torch.float16, device=DEVICE)), activation


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"m": 0}, "m=0.*at least one row"),
        ({"activation": "relu"}, "activation=relu.*gelu, quick_gelu, silu"),
        ({"out_dtype": "bfloat16"}, "out_dtype=bfloat16.*float16 or float32"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_linear_f16(**{"m": 8, "n": 8, "k": 16, "arch": SM89, **shape})


def test_a_plan_counts_its_work() -> None:
    plan = plan_linear_f16(m=77, n=3072, k=768, arch=SM89)
    assert plan.operations == {"float16": 2 * 77 * 3072 * 768}
    assert plan.launches[0].instruction == "f16"


def test_export_and_compile_take_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            out: Tensor = linear_f16(x, weight, bias, None, "gelu")
            return out + 1

    given_ = {name: operands(4, 8, 16)[name].cpu() for name in ("x", "weight", "bias")}
    expected = Block()(**given_)
    exported = torch.export.export(Block(), (), given_)
    assert "pocketxl.linear_f16.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(**given_), expected)
    assert torch.equal(torch.compile(Block(), backend="aot_eager", fullgraph=True)(**given_), expected)
