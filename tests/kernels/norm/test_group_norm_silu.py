import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.norm.op import (
    add_layer_norm_quantize,
    group_norm_silu,
    group_norm_silu_quantize,
    layer_norm_quantize,
)
from pocketxl.kernels.norm.plan import plan_group_norm_silu, plan_group_norm_silu_quantize
from pocketxl.kernels.norm.reference import group_norm_silu_ref

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, error, poisoned
from ...tolerances import SCALE_RELATIVE
from ..quantize.checks import assert_float8, assert_int8

EPS = 1e-5
TROUGH = 0.2784645427610738  # of SiLU, at -1.2784645

Operands = tuple[Tensor, Tensor, Tensor]


def operands(b: int, h: int, w: int, c: int, dtype: torch.dtype = torch.float16, seed: int = 0) -> Operands:
    """Pictures whose channels have a mean and a spread of their own, as a network's have."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(b, h, w, c, generator=random) * (0.2 + 2 * torch.rand(c, generator=random))
    x += torch.randn(c, generator=random) * 2
    weight, bias = 1 + torch.randn(c, generator=random) / 4, torch.randn(c, generator=random) / 2
    return x.to(DEVICE, dtype), weight.to(DEVICE, dtype), bias.to(DEVICE, dtype)


def torch_path(x: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool = True) -> Tensor:
    """GroupNorm and SiLU in torch, in the dtype of its operands.

    On NCHW: torch's channels-last path on a CPU subtracts squares, and is off by 1.5 where the mean is 3000.
    """
    value = functional.group_norm(x.movedim(-1, 1).contiguous(), groups, weight, bias, EPS)
    return (functional.silu(value) if silu else value).movedim(1, -1)


def assert_quantized(made: tuple[Tensor, ...], given_: Operands, groups: int, silu: bool = True) -> None:
    """The scale is that of the largest magnitude, or of SiLU's trough where that bound is larger; and the integers."""
    truth = group_norm_silu_ref(*given_, groups, EPS, silu)
    amax = truth.abs().amax((1, 2, 3))
    assert (made[1] * 127.0 >= amax * (1 - SCALE_RELATIVE)).all(), "a scale below the largest magnitude"
    bound = amax.clamp_min(TROUGH) if silu and bool((made[1] > amax / 127 * (1 + SCALE_RELATIVE)).any()) else None
    x, weight, bias = (value.float() for value in given_)
    assert_int8(made, truth, torch_path(x, weight, bias, groups, silu), dims=3, bound=bound)


SHAPES = [
    (1, 1, 1, 16, 4), (1, 24, 36, 16, 2), (2, 7, 11, 48, 3), (1, 5, 9, 320, 8), (1, 3, 5, 384, 4), (1, 2, 3, 960, 2),
    (1, 33, 1, 112, 7),
]  # fmt: skip


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("shape", SHAPES[::2])
def test_float16_is_as_good_as_torch_and_every_element_written(shape: tuple[int, ...], silu: bool) -> None:
    b, h, w, c, groups = shape
    x, weight, bias = operands(b, h, w, c)
    plan = plan_group_norm_silu(b=b, h=h, w=w, c=c, arch=architecture_of(x), groups=groups, eps=EPS, silu=silu)
    made = execute(plan, {"x": x, "weight": weight, "bias": bias}, allocate=poisoned)["out"]
    truth = group_norm_silu_ref(x, weight, bias, groups, EPS, silu)
    assert_as_good_as_torch(made, torch_path(x, weight, bias, groups, silu), truth)


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_within_half_a_step_and_every_element_written(shape: tuple[int, ...]) -> None:
    b, h, w, c, groups = shape
    silu = w % 2 == 1
    x, weight, bias = operands(b, h, w, c)
    plan = plan_group_norm_silu_quantize(b=b, h=h, w=w, c=c, arch=architecture_of(x), groups=groups, eps=EPS, silu=silu)
    made = execute(plan, {"x": x, "weight": weight, "bias": bias}, allocate=poisoned)
    assert_quantized((made["out"], made["scale"]), (x, weight, bias), groups, silu)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_floats_and_parameters_of_another_dtype(dtype: torch.dtype) -> None:
    x, weight, bias = operands(2, 5, 7, 32, dtype)
    value = group_norm_silu(x, weight.float(), bias.float(), 2, EPS)
    assert value.dtype == dtype
    assert_as_good_as_torch(value, torch_path(x, weight, bias, 2), group_norm_silu_ref(x, weight, bias, 2, EPS))
    assert_quantized(group_norm_silu_quantize(x, weight, bias, 2, EPS), (x, weight, bias), 2)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_scale_is_never_below_the_largest_magnitude_and_above_it_only_by_the_trough(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2]))
    c = 16 * groups * data.draw(st.integers(1, 2))
    given_ = operands(
        1, data.draw(st.integers(1, 20)), data.draw(st.integers(1, 5)), c, seed=data.draw(st.integers(0, 99))
    )
    _, weight, bias = given_
    weight *= data.draw(st.sampled_from([-1.0, 0.0, 0.02, 1.0, 3.0]))
    bias -= data.draw(st.sampled_from([0.0, 1.3, 3.0]))
    silu = data.draw(st.booleans())
    assert_quantized(group_norm_silu_quantize(*given_, groups, EPS, silu), given_, groups, silu)


@pytest.mark.parametrize(("low", "high", "trough"), [(-3.0, -0.5, True), (-9.0, -2.0, False), (-1.2, -0.2, False)])
def test_a_channel_that_spans_the_trough_without_touching_it(low: float, high: float, trough: bool) -> None:
    """Two values only: normalized to -1 and 1, then to low and high."""
    x = torch.ones(1, 4, 4, 16, device=DEVICE)
    x[:, ::2] = -1
    weight = torch.full((16,), (high - low) / 2, device=DEVICE)
    bias = torch.full((16,), (high + low) / 2, device=DEVICE)
    scale = float(group_norm_silu_quantize(x, weight, bias, 2, 1e-12)[1])
    truth = float(functional.silu(torch.tensor([low, high], dtype=torch.float64)).abs().max())
    assert scale * 127 == pytest.approx(TROUGH if trough else truth, rel=SCALE_RELATIVE)
    assert trough == (truth < TROUGH * 0.9 and low < -1.28 < high)


@pytest.mark.parametrize("weight", [0.2, -0.3])
def test_a_picture_whose_largest_magnitude_is_the_trough(weight: float) -> None:
    x = operands(1, 9, 13, 16)[0]
    given_ = (x, torch.full((16,), weight, device=DEVICE), torch.full((16,), -1.2784645, device=DEVICE))
    truth = group_norm_silu_ref(*given_, 2, EPS).abs()
    assert truth.max().item() == pytest.approx(TROUGH, rel=1e-5)
    assert_quantized(group_norm_silu_quantize(*given_, 2, EPS), given_, 2)


def test_a_mean_far_above_the_spread_is_not_cancelled() -> None:
    x, weight, bias = operands(2, 9, 13, 32, torch.float32)
    x[0] += 3000
    x[1, ..., 16:] -= 1e4
    spacing = 2.0**-10  # of float32 around 1e4: half of that may be lost in the mean, half in the product
    truth = group_norm_silu_ref(x, weight, bias, 2, EPS)
    assert error(group_norm_silu(x, weight, bias, 2, EPS), truth) <= spacing


@pytest.mark.parametrize("pixel", [(0, 0), (8, 12)])
def test_one_pixel_far_from_all_others_is_not_lost_even_as_the_chunks_first(pixel: tuple[int, int]) -> None:
    x, weight, bias = operands(1, 9, 13, 16)
    x[0, *pixel] = 30000
    truth = group_norm_silu_ref(x, weight, bias, 2, EPS)
    assert_as_good_as_torch(group_norm_silu(x, weight, bias, 2, EPS), torch_path(x, weight, bias, 2), truth)
    assert_quantized(group_norm_silu_quantize(x, weight, bias, 2, EPS), (x, weight, bias), 2)


def test_an_outlier_channel_and_the_end_of_float16() -> None:
    x, weight, bias = operands(2, 9, 7, 32)
    x[0, ..., 5] *= 50
    x[1, ::2], x[1, 1::2] = 65504, -65504
    assert_quantized(group_norm_silu_quantize(x, weight, bias, 2, EPS), (x, weight, bias), 2)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("silu", [True, False])
def test_a_constant_group_is_its_bias(silu: bool) -> None:
    x, weight, bias = operands(2, 7, 9, 32)
    x[0], x[1, ..., :16] = 0, 5
    truth = group_norm_silu_ref(x, weight, bias, 2, EPS, silu)
    assert_as_good_as_torch(group_norm_silu(x, weight, bias, 2, EPS, silu), torch_path(x, weight, bias, 2, silu), truth)
    zero = torch.zeros_like(bias)
    q, scale = group_norm_silu_quantize(x[:1], weight, zero, 2, EPS, silu)
    assert not q.any()
    assert 0 < scale < 1e-30


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0, 0), (6, 10, 31)])
def test_what_is_not_finite_stays_in_its_group_and_picture(wrong: float, place: tuple[int, int, int]) -> None:
    x, weight, bias = operands(2, 7, 11, 32)
    x[(1, *place)] = wrong
    value = group_norm_silu(x, weight, bias, 2, EPS).isnan()
    expected = torch.zeros_like(value)
    group = place[2] // 16 * 16
    expected[1, ..., group : group + 16] = True
    assert torch.equal(value, expected)
    q, scale = group_norm_silu_quantize(x, weight, bias, 2, EPS)
    assert scale.isnan().tolist() == [False, True]
    assert_quantized((q[:1], scale[:1]), (x[:1], weight, bias), 2)


def test_a_variance_that_overflows_makes_nan() -> None:
    x, weight, bias = operands(1, 4, 4, 16, torch.float32)
    x[:, ::2] = 1e30
    assert group_norm_silu(x, weight, bias, 2, EPS).isnan().all()
    assert group_norm_silu_quantize(x, weight, bias, 2, EPS)[1].isnan()


def test_a_picture_is_the_same_in_any_batch_and_in_any_run() -> None:
    x, weight, bias = operands(2, 6, 9, 32)
    value = group_norm_silu(x, weight, bias, 2, EPS)
    q, scale = group_norm_silu_quantize(x, weight, bias, 2, EPS)
    for _ in range(2):
        assert torch.equal(group_norm_silu(x[1:2], weight, bias, 2, EPS)[0], value[1])
        alone, alone_scale = group_norm_silu_quantize(x[1:2], weight, bias, 2, EPS)
        assert torch.equal(alone[0], q[1])
        assert torch.equal(alone_scale[0], scale[1])


@pytest.mark.parametrize(("c", "c2", "groups"), [(32, 16, 3), (16, 80, 4), (64, 64, 8), (48, 16, 2), (192, 64, 4)])
def test_two_pictures_are_one_concatenated_to_the_bit_and_groups_cross_the_seam(c: int, c2: int, groups: int) -> None:
    whole, weight, bias = operands(2, 5, 7, c + c2)
    x, x2 = whole[..., :c], whole[..., c:]
    plan = plan_group_norm_silu(b=2, h=5, w=7, c=c, c2=c2, arch=architecture_of(x), groups=groups)
    inputs = {"x": x.contiguous(), "x2": x2.contiguous(), "weight": weight, "bias": bias}
    made = execute(plan, inputs, allocate=poisoned)["out"]
    assert_as_good_as_torch(
        made, torch_path(whole, weight, bias, groups), group_norm_silu_ref(x, weight, bias, groups, EPS, x2=x2)
    )
    assert torch.equal(made, group_norm_silu(x, weight, bias, groups, EPS, x2=x2))
    assert_quantized(
        group_norm_silu_quantize(x, weight, bias, groups, EPS, False, x2=x2), (whole, weight, bias), groups, False
    )


def test_blocks_of_channels_as_wide_as_for_one_picture_give_the_same_bits() -> None:
    whole, weight, bias = operands(2, 3, 5, 192)
    one = group_norm_silu(whole, weight, bias, 4, EPS)
    assert torch.equal(group_norm_silu(whole[..., :128], weight, bias, 4, EPS, x2=whole[..., 128:]), one)


@pytest.mark.parametrize(("c", "c2"), [(1280, 1280), (1280, 640), (640, 320), (320, 320), (1536, 768), (384, 384)])
def test_the_up_blocks_of_sdxl_leave_no_lane_idle(c: int, c2: int) -> None:
    statistics, _, apply = plan_group_norm_silu_quantize(b=2, h=32, w=32, c=c, c2=c2, arch=architecture(89)).launches
    for launch in (statistics, apply):
        assert launch.constants["WIDTH"] == 64
        assert launch.grid[0] * 64 == c + c2


def test_float8() -> None:
    x, weight, bias = operands(2, 5, 7, 32)
    made = group_norm_silu_quantize(x, weight, bias, 2, EPS, dtype=torch.float8_e4m3fn)
    assert_float8(made, group_norm_silu_ref(x, weight, bias, 2, EPS), dims=3)


@pytest.mark.parametrize("c", [320, 384, 640, 768, 960, 1152, 1280, 1536, 1920, 2304, 2560, 3072])
def test_channels_of_sdxl_leave_no_lane_idle(c: int) -> None:
    plan = plan_group_norm_silu_quantize(b=1, h=32, w=32, c=c, arch=architecture(89))
    statistics, merge, apply = plan.launches
    for launch in (statistics, apply):
        tile = launch.constants
        height = tile["HEIGHT"]
        assert isinstance(height, int)
        assert tile["WIDTH"] == 64
        assert launch.grid[0] * 64 == c
        assert height * 64 == 256 * launch.num_warps, "eight elements a thread"
    assert merge.grid == (32, 1, 1)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"b": 1, "h": 8, "w": 8, "c": 24, "groups": 4}, "c=24.*multiple of 16"),
        ({"b": 1, "h": 8, "w": 8, "c": 48}, "c=48, groups=32.*divide"),
        ({"b": 1, "h": 0, "w": 8, "c": 32}, "h=0.*at least one element"),
        ({"b": 1, "h": 8, "w": 8, "c": 32, "c2": 8, "groups": 4}, "c2=8.*multiple of 16"),
        ({"b": 1, "h": 8, "w": 8, "c": 64, "c2": 16}, "c2=16.*divide"),
        ({"b": 1, "h": 8192, "w": 8192, "c": 32}, "counted in 32 bits"),
        ({"b": 1, "h": 8, "w": 8, "c": 32, "eps": 0.0}, "eps=0.0.*positive"),
        ({"b": 1, "h": 8, "w": 8, "c": 32, "x_dtype": "int8"}, "x_dtype=int8.*float16"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, object], reason: str) -> None:
    for plan in (plan_group_norm_silu, plan_group_norm_silu_quantize):
        with pytest.raises(UnsupportedShapeError, match=reason):
            plan(arch=architecture(89), **shape)  # type: ignore[arg-type]


def test_export_and_compile_take_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
            return (
                group_norm_silu(x, weight, bias, 2, EPS),
                *group_norm_silu_quantize(x, weight, bias, 2, EPS, False),
                *layer_norm_quantize(x, weight, bias, EPS),
                *add_layer_norm_quantize(x, x, weight, bias, EPS),
            )

    given_ = tuple(value.cpu() for value in operands(2, 3, 4, 32))
    expected = Block()(*given_)
    exported = torch.export.export(Block(), given_)
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    ops = ("group_norm_silu", "group_norm_silu_quantize", "layer_norm_quantize", "add_layer_norm_quantize")
    assert {f"pocketxl.{op}.default" for op in ops} <= called
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    for made in (exported.module()(*given_), compiled(*given_)):
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(made, expected, strict=True))
