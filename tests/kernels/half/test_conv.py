from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, Architecture, architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.half.op import conv_f16
from pocketxl.kernels.half.plan import plan_conv_f16
from pocketxl.kernels.half.reference import conv_f16_ref

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned

SM89 = architecture(89)


def operands(
    b: int, h: int, w: int, c: int, n: int, *, kernel: int = 3, c2: int = 0, stride: int = 1, added: bool = True,
    seen: tuple[int, int] | None = None, seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Outputs of order one."""
    random = torch.Generator().manual_seed(seed)
    height, width = seen or (-(-h // stride), -(-w // stride))
    made = {
        "x": torch.randn(b, h, w, c, generator=random),
        "weight": torch.randn(n, kernel, kernel, c + c2, generator=random) / (kernel * kernel * (c + c2)) ** 0.5,
        "bias": torch.randn(n, generator=random),
    }
    if c2:
        made["x2"] = torch.randn(b, h, w, c2, generator=random)
    if added:
        made["time"] = torch.randn(b, n, generator=random)
        made["residual"] = torch.randn(b, height, width, n, generator=random)
    return {name: value.half().to(DEVICE) for name, value in made.items()}


def torch_path(
    x: Tensor, weight: Tensor, bias: Tensor, time: Tensor | None = None, residual: Tensor | None = None,
    x2: Tensor | None = None, *, stride: int = 1, seen: tuple[int, int] | None = None,
) -> Tensor:  # fmt: skip
    """The same layer as torch computes it in float16."""
    picture = (x if x2 is None else torch.cat([x, x2], -1)).permute(0, 3, 1, 2)
    if seen:
        picture = interpolate(picture, size=seen, mode="nearest")
    out = conv2d(picture, weight.permute(0, 3, 1, 2), bias, stride=stride, padding=weight.shape[1] // 2)
    out = out.permute(0, 2, 3, 1)
    if time is not None:
        out = out + time[:, None, None, :]
    return out if residual is None else out + residual


def check(
    given_: dict[str, Tensor], arch: Architecture | None = None, *, stride: int = 1, seen: tuple[int, int] | None = None
) -> None:
    """Poisoned memory, and at most twice the error of torch's convolution."""
    x, x2 = given_["x"], given_.get("x2")
    b, h, w, c = x.shape
    n, kernel = given_["weight"].shape[:2]
    plan = plan_conv_f16(
        b=b, h=h, w=w, c=c, n=n, kernel=kernel, arch=arch or architecture_of(x), stride=stride, upsample_to=seen,
        c2=0 if x2 is None else x2.shape[-1], time="time" in given_, residual="residual" in given_,
    )  # fmt: skip
    value = execute(plan, given_, allocate=poisoned)["out"]
    truth = conv_f16_ref(**given_, stride=stride, upsample_to=seen)
    assert_as_good_as_torch(value, torch_path(**given_, stride=stride, seen=seen), truth)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((1, 1, 1, 16, 16), 3, 1),
        ((1, 7, 11, 64, 64), 3, 1),
        ((2, 7, 11, 16, 40), 3, 1),  # conv_in: 4 channels and zeros
        ((2, 6, 9, 64, 4), 3, 1),  # conv_out
        ((2, 6, 9, 48, 40), 3, 2),
        ((3, 5, 7, 96, 24), 1, 1),
        ((1, 4, 6, 80, 3), 1, 2),
    ],
)
def test_is_as_good_as_torch(shape: tuple[int, int, int, int, int], kernel: int, stride: int) -> None:
    check(operands(*shape, kernel=kernel, stride=stride), stride=stride)
    check(operands(*shape, kernel=kernel, stride=stride, added=False), stride=stride)


@pytest.mark.parametrize("arch", GPU_ARCHITECTURES.values() if DEVICE == "cpu" else [None])
@pytest.mark.parametrize(
    ("shape", "kernel"), [((1, 5, 6, 64, 72), 3), ((2, 20, 13, 96, 136), 1), ((1, 3, 3, 32, 4), 3)]
)
def test_the_tiles_of_every_architecture(
    arch: Architecture | None, shape: tuple[int, int, int, int, int], kernel: int
) -> None:
    check(operands(*shape, kernel=kernel), arch)


@pytest.mark.parametrize(("c", "c2", "kernel"), [(64, 32, 1), (48, 80, 3), (16, 128, 3)])
def test_two_pictures_are_one_concatenated(c: int, c2: int, kernel: int) -> None:
    given_ = operands(2, 5, 6, c, 40, kernel=kernel, c2=c2)
    check(given_)
    whole = {name: value for name, value in given_.items() if name != "x2"}
    whole["x"] = torch.cat([given_["x"], given_["x2"]], -1)
    check(whole)


@pytest.mark.parametrize("seen", [(4, 12), (3, 12), (3, 11)])
def test_enlarging_in_the_addresses_equals_enlarging_the_picture(seen: tuple[int, int]) -> None:
    given_ = operands(2, 2, 6, 32, 24, seen=seen)
    check(given_, seen=seen)
    x = interpolate(given_["x"].permute(0, 3, 1, 2), size=seen, mode="nearest").permute(0, 2, 3, 1).contiguous()
    assert torch.equal(conv_f16(**given_, upsample_to=list(seen)), conv_f16(**{**given_, "x": x}))


def test_shares_of_a_deep_sum_add_up() -> None:
    given_ = operands(2, 4, 3, 128, 40)
    plan = plan_conv_f16(b=2, h=4, w=3, c=128, n=40, arch=SM89)
    assert plan.launches[0].grid[1] == plan.scratch["sums"].shape[0] > 1
    check(given_)
    assert torch.equal(conv_f16(**given_), conv_f16(**given_))


def test_whole_numbers_are_summed_exactly_into_float32() -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randint(-8, 9, shape, generator=random).half().to(DEVICE) for shape in ((1, 5, 4, 64), (4, 3, 3, 64))
    )
    value = conv_f16(x, weight, out_dtype=torch.float32)
    assert value.dtype == torch.float32
    assert torch.equal(value.double(), conv_f16_ref(x, weight))


def test_a_picture_is_the_same_whatever_stands_beside_it() -> None:
    given_ = operands(3, 3, 5, 128, 24)
    assert plan_conv_f16(b=3, h=3, w=5, c=128, n=24, arch=SM89).scratch, "the sum is shared out"
    together = conv_f16(**given_)
    shared = ("weight", "bias")
    for i in range(3):
        alone = {name: value if name in shared else value[i : i + 1] for name, value in given_.items()}
        assert torch.equal(conv_f16(**alone), together[i : i + 1])


def test_nan_reaches_its_neighbours_and_no_padding() -> None:
    given_ = operands(2, 5, 5, 16, 16, added=False)
    given_["x"][1, 2, 2, 3] = float("nan")
    expected = torch.zeros(2, 5, 5, dtype=torch.bool, device=DEVICE)
    expected[1, 1:4, 1:4] = True
    assert torch.equal(conv_f16(**given_).isnan().all(-1), expected)


@settings(max_examples=8, deadline=None)
@given(
    b=st.integers(1, 3), h=st.integers(1, 8), w=st.integers(1, 8), c=st.integers(1, 6).map(lambda part: 16 * part),
    n=st.integers(1, 70), kernel=st.sampled_from((1, 3)), stride=st.sampled_from((1, 2)),
)  # fmt: skip
def test_any_shape_in_the_constraints(b: int, h: int, w: int, c: int, n: int, kernel: int, stride: int) -> None:
    check(operands(b, h, w, c, n, kernel=kernel, stride=stride, seed=b * h * w * c * n), stride=stride)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"c": 4}, "c=4.*multiple of 16.*pad conv_in"),
        ({"c2": 8}, "c2=8.*multiple of 16"),
        ({"b": 0}, "b=0.*at least one picture"),
        ({"kernel": 5}, "kernel=5.*1x1.*3x3"),
        ({"upsample_to": (16, 16), "stride": 2}, "stride=2.*enlarged.*stride 1"),
        ({"out_dtype": "int8"}, "out_dtype=int8.*float16 or float32"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_conv_f16(**{"b": 1, "h": 8, "w": 8, "c": 16, "n": 8, "arch": SM89, **shape})


def test_a_plan_counts_its_work() -> None:
    plan = plan_conv_f16(b=2, h=128, w=128, c=320, n=640, stride=2, arch=SM89, residual=True)
    assert plan.operations == {"float16": 2 * (2 * 64 * 64) * 640 * 320 * 9}
    assert plan.outputs["out"].shape == plan.inputs["residual"].shape == (2, 64, 64, 640)


def test_export_and_compile_take_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            small: Tensor = conv_f16(x, weight, bias, stride=2)
            large: Tensor = conv_f16(x, weight, bias, upsample_to=[8, 10])
            return large[:, : small.shape[1], : small.shape[2]] + small

    given_ = {name: value.cpu() for name, value in operands(2, 4, 5, 16, 8, added=False).items()}
    expected = Block()(**given_)
    exported = torch.export.export(Block(), (), given_)
    called = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert called.count("pocketxl.conv_f16.default") == 2
    assert torch.equal(exported.module()(**given_), expected)
    assert torch.equal(torch.compile(Block(), backend="aot_eager", fullgraph=True)(**given_), expected)
