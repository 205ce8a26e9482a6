import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.pixels.op import read_pixels
from pocketxl.kernels.pixels.plan import plan_read_pixels
from pocketxl.kernels.pixels.reference import read_pixels_ref

from ...fixtures.kernels import DEVICE, poisoned


def picture(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def run(x: Tensor, padded: int) -> Tensor:
    b, c, h, w = x.shape
    plan = plan_read_pixels(b=b, h=h, w=w, c=c, padded=padded, arch=architecture_of(x))
    return execute(plan, {"x": x}, allocate=poisoned)["out"]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 16), st.integers(1, 20), st.integers(1, 20), st.integers(1, 3))
def test_every_number_is_where_it_belongs_and_rounded_once(b: int, c: int, h: int, w: int, blocks: int) -> None:
    x = picture(b, c, h, w)
    assert torch.equal(run(x, 16 * blocks), read_pixels_ref(x, 16 * blocks).half())


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # the interpreter is numpy
def test_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, float("nan")]], [[1e6, -0.0]]]], device=DEVICE)  # 3 channels, 2 pixels
    found = read_pixels(x, 16).cpu()
    assert found.shape == (1, 1, 2, 16)
    assert found[0, 0, 0, :4].tolist() == [1, 3, float("inf"), 0]
    assert found[0, 0, 1, [0, 2, 3]].tolist() == [2, 0, 0]
    assert found.isnan().nonzero().tolist() == [[0, 0, 1, 1]]
    assert not found[..., 3:].any()


def test_pictures_of_any_strides() -> None:
    x = picture(2, 5, 7, 4).permute(0, 3, 1, 2)
    assert torch.equal(read_pixels(x, 16)[..., :4], x.permute(0, 2, 3, 1).half())


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ({"padded": 24}, "multiple of 16"),
        ({"c": 17}, "must hold c channels"),
        ({"padded": 272}, "at most 256"),
        ({"h": 0}, "at least one element"),
        ({"h": 2**16, "w": 2**15}, "counted in 32 bits"),
        ({"b": 2**16}, "at most 65535 pictures"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, int], why: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=rf"read_pixels .*c=.*{why}"):
        plan_read_pixels(**{"b": 1, "h": 8, "w": 8, "c": 4, "padded": 16, **shape}, arch=architecture(89))


def test_export_takes_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = read_pixels(x, 16)
            return out + 1

    x = picture(1, 4, 3, 2).cpu()
    exported = torch.export.export(Block(), (x,))
    assert "pocketxl.read_pixels.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(x), Block()(x))
