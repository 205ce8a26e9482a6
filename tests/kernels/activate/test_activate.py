import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.activate.op import activate
from pocketxl.kernels.activate.plan import plan_activate
from pocketxl.kernels.activate.reference import activate_ref
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned

TORCH = {
    "gelu": torch.nn.functional.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": torch.nn.functional.silu,
}
ACTIVATIONS = st.sampled_from(sorted(TORCH))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 200), ACTIVATIONS)
def test_is_as_good_as_torch_and_every_element_written(m: int, n: int, activation: str) -> None:
    x = (3 * torch.randn(m, n, generator=torch.Generator().manual_seed(0))).half().to(DEVICE)
    plan = plan_activate(m=m, n=n, activation=activation, arch=architecture_of(x))
    made = execute(plan, {"x": x}, allocate=poisoned)["out"]
    assert_as_good_as_torch(made, TORCH[activation](x), activate_ref(x, activation))


@pytest.mark.parametrize("activation", TORCH)
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # the interpreter is numpy
def test_the_ends_of_halves(activation: str) -> None:
    x = torch.tensor([[-65504.0, -12.0, 0.0, 12.0, 65504.0, float("nan")]], device=DEVICE).half()
    found = activate(x, activation)[0].cpu().float()
    assert found[[0, 2]].tolist() == [0, 0]
    assert found[4] == 65504
    assert abs(found[1]) < 1e-3
    assert found[3] == pytest.approx(12, abs=1e-3)
    assert found.isnan().tolist() == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ({"m": 0}, "at least one element"),
        ({"activation": "relu"}, "one of gelu, quick_gelu, silu"),
        ({"activation": ""}, "one of gelu"),
        ({"m": 2**16, "n": 2**15}, "counted in 32 bits"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, int | str], why: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=rf"activate .*m=.*{why}"):
        plan_activate(**{"m": 8, "n": 16, "activation": "gelu", **shape}, arch=architecture(89))  # type: ignore[arg-type]


def test_export_takes_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = activate(x, "silu")
            return out + 1

    x = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0)).half()
    exported = torch.export.export(Block(), (x,))
    assert "pocketxl.activate.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(x), Block()(x))
