import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.quantize.op import geglu
from pocketxl.kernels.quantize.plan import plan_geglu
from pocketxl.kernels.quantize.reference import geglu_ref

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned
from ..steps import assert_steps


def operand(*shape: int) -> Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).half().to(DEVICE)


def torch_path(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, -1)
    return value * gelu(gate)


@pytest.mark.parametrize(("m", "n"), [(1, 16), (7, 640), (3, 2560), (33, 208)])
def test_is_as_good_as_torch_and_every_element_written(m: int, n: int) -> None:
    x = operand(m, 2 * n)
    made = execute(plan_geglu(m=m, n=n, arch=architecture_of(x)), {"x": x}, allocate=poisoned)["out"]
    assert_as_good_as_torch(made, torch_path(x), geglu_ref(x))


@pytest.mark.parametrize(("m", "n"), [(1, 16), (7, 640), (33, 208)])
def test_the_result_in_8_bits(m: int, n: int) -> None:
    x, inverse = operand(m, 2 * n), torch.linspace(2, 60, n, device=DEVICE)
    plan = plan_geglu(m=m, n=n, arch=architecture_of(x), quantized=True)
    made = execute(plan, {"x": x, "inverse": inverse}, allocate=poisoned)["out"]
    assert made.dtype == torch.int8
    if m > 1:
        assert_steps(made, geglu_ref(x, inverse))
    assert torch.equal(geglu(x, inverse), made)
    assert (geglu_ref(x.cpu(), inverse.cpu()).to(torch.int8) - made.cpu()).abs().max() <= 1


def test_leading_dimensions_and_nan_stays_in_its_element() -> None:
    x = operand(2, 5, 96)
    x[1, 2, 7], x[0, 1, 48 + 9] = float("nan"), float("nan")
    value = geglu(x)
    assert value.shape == (2, 5, 48)
    assert value.isnan().nonzero().tolist() == [[0, 1, 9], [1, 2, 7]]


def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason() -> None:
    with pytest.raises(UnsupportedShapeError, match=r"geglu .*n=24.*multiple of 16"):
        plan_geglu(m=8, n=24, arch=architecture(89))


def test_export_takes_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = geglu(x)
            return out + 1

    x = operand(3, 32).cpu()
    exported = torch.export.export(Block(), (x,))
    assert "pocketxl.geglu.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(x), Block()(x))
