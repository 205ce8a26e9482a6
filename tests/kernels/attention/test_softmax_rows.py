from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.attention.op import softmax_rows
from pocketxl.kernels.attention.plan import plan_softmax_rows
from pocketxl.kernels.attention.reference import softmax_rows_ref
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, dtype_name, execute
from pocketxl.kernels.half.op import linear_f16

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned

SCALE = 512**-0.5


def scores(*shape: int, dtype: torch.dtype = torch.float16, seed: int = 0) -> Tensor:
    return (40 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(DEVICE, dtype)


def check(x: Tensor, n: int) -> None:
    """Poisoned memory, and at most twice the error of torch's softmax."""
    m, stride = x.shape
    plan = plan_softmax_rows(
        m=m, n=n, stride=stride, scale=SCALE, arch=architecture_of(x), x_dtype=dtype_name(x.dtype)
    )  # fmt: skip
    made = execute(plan, {"x": x}, allocate=poisoned)["out"]
    assert not made[:, n:].any()
    peer = torch.softmax(x[:, :n].float() * SCALE, -1).half()
    assert_as_good_as_torch(made[:, :n], peer, softmax_rows_ref(x, SCALE, n)[:, :n])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("m", "n", "stride"), [(1, 1, 1), (3, 64, 64), (2, 81, 96), (5, 5000, 5008), (1, 4096, 4096)])
def test_is_as_good_as_torch_and_columns_behind_the_last_are_zero(
    m: int, n: int, stride: int, dtype: torch.dtype
) -> None:
    x = scores(m, stride, dtype=dtype)
    x[:, n:] = float("nan")  # whatever lies there
    check(x, n)


@settings(max_examples=6, deadline=None)
@given(m=st.integers(1, 4), n=st.integers(1, 300), more=st.integers(0, 20))
def test_any_shape(m: int, n: int, more: int) -> None:
    check(scores(m, n + more, seed=n), n)


@pytest.mark.usefixtures("arithmetic")
def test_the_largest_scores_win_exactly() -> None:
    x = scores(3, 80, dtype=torch.float32)
    x[0, 5], x[1, 7], x[2] = 1e4, 1e30, -1e30
    value = softmax_rows(x, SCALE)
    expected = torch.zeros_like(value)
    expected[0, 5], expected[1, 7], expected[2] = 1, 1, 1 / 80
    assert torch.equal(value, expected)


def test_nan_stays_in_its_row() -> None:
    x = scores(3, 80)
    x[1, 70] = float("nan")
    assert softmax_rows(x).isnan().all(-1).tolist() == [False, True, False]


def test_with_two_linears_it_is_attention_of_one_wide_head() -> None:
    """As the VAE's middle: tokens padded to a multiple of 16, values transposed."""
    random = torch.Generator().manual_seed(0)
    tokens, padded = 81, 96
    q, k, v = (torch.randn(padded, 64, generator=random).half().to(DEVICE) for _ in range(3))
    logits = linear_f16(q, k, out_dtype=torch.float32)
    shares = softmax_rows(logits, 0.125, tokens)
    value = linear_f16(shares, v.mT.contiguous())[:tokens]
    q, k, v = q[:tokens], k[:tokens], v[:tokens]
    truth = torch.softmax(q.double() @ k.double().mT / 8, -1) @ v.double()
    peer = torch.softmax((q @ k.mT).float() / 8, -1).half() @ v
    assert_as_good_as_torch(value, peer, truth)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"n": 0}, "n=0.*at least one"),
        ({"stride": 7}, "stride=7.*n columns"),
        ({"scale": 0.0}, "scale=0.0.*positive"),
        ({"x_dtype": "int8"}, "x_dtype=int8.*float16 or float32"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_softmax_rows(**{"m": 8, "n": 8, "arch": architecture(89), **shape})


def test_export_takes_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = softmax_rows(x, 0.5)
            return out + 1

    x = scores(3, 32).cpu()
    exported = torch.export.export(Block(), (x,))
    assert "pocketxl.softmax_rows.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(x), Block()(x))
