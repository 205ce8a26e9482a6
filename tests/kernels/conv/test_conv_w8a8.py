from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, Architecture, architecture
from pocketxl.kernels.conv.op import conv_w8a8
from pocketxl.kernels.conv.plan import MAX_K, plan_conv_w8a8, split_sum
from pocketxl.kernels.conv.reference import conv_w8a8_ref, integer_convolution
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, dtype_name, execute
from pocketxl.kernels.launch import LaunchPlan

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned

SM89 = architecture(89)


def operands(
    b: int, h: int, w: int, c: int, n: int, *, kernel: int = 3, c2: int = 0, dtype: torch.dtype = torch.int8,
    seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Full-range operands; scales that differ by picture and channel, so that outputs are of order one."""
    random = torch.Generator().manual_seed(seed)

    def eight_bit(*shape: int) -> Tensor:
        if dtype == torch.int8:
            return torch.randint(-127, 128, shape, generator=random, dtype=torch.int8)
        return (torch.randn(shape, generator=random) * 100).clamp(-448, 448).to(dtype)

    made = {
        "x": eight_bit(b, h, w, c),
        "x_scale": torch.rand(b, generator=random) * 0.02,
        "weight": eight_bit(n, kernel, kernel, c + c2),
        "weight_scale": torch.rand(n, generator=random) * 0.02 / (kernel * kernel * (c + c2)) ** 0.5,
        "bias": torch.randn(n, generator=random).half(),
    }
    if c2:
        made["x2"] = eight_bit(b, h, w, c2)
        made["x2_scale"] = torch.rand(b, generator=random) * 0.2
    return {name: value.to(DEVICE) for name, value in made.items()}


def halves(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).half().to(DEVICE)


def torch_path(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor, time: Tensor | None = None,
    residual: Tensor | None = None, x2: Tensor | None = None, x2_scale: Tensor | None = None, *,
    seen: tuple[int, int] | None = None, stride: int = 1,
) -> Tensor:  # fmt: skip
    """The same layer as torch computes it in float16, on the dequantized operands."""
    picture = (x.float() * x_scale[:, None, None, None]).half()
    if x2 is not None and x2_scale is not None:
        picture = torch.cat([picture, (x2.float() * x2_scale[:, None, None, None]).half()], -1)
    picture = picture.permute(0, 3, 1, 2)
    if seen:
        picture = interpolate(picture, size=seen, mode="nearest")
    kernel = (weight.float() * weight_scale[:, None, None, None]).half().permute(0, 3, 1, 2)
    out = conv2d(picture, kernel, bias, stride=stride, padding=weight.shape[1] // 2).permute(0, 2, 3, 1)
    if time is not None:
        out = out + time[:, None, None, :]
    return out if residual is None else out + residual


# Both take the operands by name, from a dictionary.
TORCH: Callable[..., Tensor] = torch_path
TRUTH: Callable[..., Tensor] = conv_w8a8_ref


def bare(arch: Architecture, x: Tensor, weight: Tensor, **flags: Any) -> tuple[LaunchPlan, Tensor]:
    """The plan of a convolution without scales or additions, and its sums in float32, written over poison."""
    b, h, w, c = x.shape
    n, kernel = weight.shape[:2]
    plan = plan_conv_w8a8(
        b=b, h=h, w=w, c=c, n=n, kernel=kernel, arch=arch, dtype=dtype_name(x.dtype), out_dtype="float32", bias=False,
        **flags,
    )  # fmt: skip
    ones = {"x_scale": torch.ones(b, device=DEVICE), "weight_scale": torch.ones(n, device=DEVICE)}
    return plan, execute(plan, {"x": x, "weight": weight, **ones}, allocate=poisoned)["out"]


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((1, 1, 1, 16, 16), 3, 1),
        ((1, 7, 11, 64, 64), 3, 1),
        ((2, 7, 11, 32, 48), 3, 1),
        ((2, 6, 9, 64, 40), 3, 2),
        ((1, 7, 5, 48, 32), 3, 2),
        ((3, 5, 7, 320, 24), 1, 1),
        ((1, 4, 6, 80, 24), 1, 2),
        ((1, 3, 2, 384, 32), 3, 1),
    ],
)
def test_is_as_good_as_torch_in_float16(shape: tuple[int, int, int, int, int], kernel: int, stride: int) -> None:
    b, h, w, c, n = shape
    ho, wo = -(-h // stride), -(-w // stride)
    given_ = operands(b, h, w, c, n, kernel=kernel)
    added = {"time": halves(b, n), "residual": halves(b, ho, wo, n, seed=2)}
    value = conv_w8a8(**given_, **added, stride=stride)
    assert value.shape == (b, ho, wo, n)
    assert value.dtype == torch.float16
    assert value.is_contiguous()
    truth = TRUTH(**given_, **added, stride=stride)
    assert_as_good_as_torch(value, TORCH(**given_, **added, stride=stride), truth)


@pytest.mark.parametrize("arch", GPU_ARCHITECTURES.values() if DEVICE == "cpu" else [None])
@pytest.mark.parametrize(("shape", "kernel"), [((1, 5, 6, 64, 72), 3), ((2, 20, 13, 96, 72), 1)])
def test_integer_sums_are_exact_with_the_tiles_of_every_architecture(
    arch: Architecture | None, shape: tuple[int, int, int, int, int], kernel: int
) -> None:
    given_ = operands(*shape, kernel=kernel)
    _, value = bare(arch or architecture_of(given_["x"]), given_["x"], given_["weight"])
    assert torch.equal(value.double(), integer_convolution(given_["x"], given_["weight"]))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_shares_of_a_deep_sum_add_up(dtype: torch.dtype) -> None:
    given_ = operands(2, 4, 3, 128, 40, dtype=dtype)
    added = {"time": halves(2, 40), "residual": halves(2, 4, 3, 40)}
    plan, value = bare(SM89, given_["x"], given_["weight"])
    sums = plan.scratch["sums"]
    assert plan.launches[0].grid[1] == sums.shape[0] > 1
    assert len(plan.launches) == 2
    if dtype == torch.int8:
        assert sums.dtype == "int32"
        assert torch.equal(value.double(), integer_convolution(given_["x"], given_["weight"]))
    finished = conv_w8a8(**given_, **added)
    assert_as_good_as_torch(finished, TORCH(**given_, **added), TRUTH(**given_, **added))
    assert torch.equal(finished, conv_w8a8(**given_, **added))


def test_sums_are_split_where_tiles_leave_the_gpu_idle_and_the_sum_is_deep() -> None:
    assert split_sum(tiles=20, steps=180, depth=11520, programs=256) == 8  # 16x16 pixels, 1280 channels
    assert split_sum(tiles=256, steps=180, depth=11520, programs=256) == 1
    assert split_sum(tiles=1, steps=3, depth=192, programs=256) == 1  # nothing to share
    assert split_sum(tiles=2000, steps=90, depth=5760, programs=256) == 1
    for tiles, steps in product((1, 7, 40, 300), (1, 4, 9, 45, 200)):
        assert 1 <= split_sum(tiles=tiles, steps=steps, depth=64 * steps, programs=164) <= max(1, min(8, steps // 4))


def test_a_small_card_shares_out_less() -> None:
    def splits(multiprocessors: int | None) -> int:
        arch = architecture(89, multiprocessors)
        return plan_conv_w8a8(b=2, h=16, w=16, c=1280, n=1280, arch=arch).launches[0].grid[1]

    assert splits(None) == splits(128) > 1  # the tables' card
    assert splits(20) == 1


def test_the_largest_products_do_not_wrap() -> None:
    x = torch.full((1, 3, 3, 512), -128, dtype=torch.int8, device=DEVICE)
    weight = torch.full((16, 3, 3, 512), -128, dtype=torch.int8, device=DEVICE)
    _, value = bare(SM89, x, weight)
    assert (value[0, 1, 1] == 9 * 512 * 128 * 128).all()
    assert (value[0, 0, 0] == 4 * 512 * 128 * 128).all()  # a corner sees four pixels


def test_each_picture_has_its_own_scale_though_a_tile_holds_several() -> None:
    b, h, w, n = 5, 3, 5, 24
    given_ = operands(b, h, w, 32, n)
    given_["x_scale"] = torch.tensor([1e-4, 1.0, 3.0, 1e-2, 0.5], device=DEVICE) * 1e-2
    time = halves(b, n)
    together = conv_w8a8(**given_, time=time)
    for picture in range(b):
        one = slice(picture, picture + 1)
        alone = conv_w8a8(**{**given_, "x": given_["x"][one], "x_scale": given_["x_scale"][one]}, time=time[one])
        assert torch.equal(together[one], alone)


@pytest.mark.parametrize(("h", "w", "seen"), [(3, 5, None), (2, 6, (3, 12)), (3, 4, (5, 7))])
def test_enlarging_in_the_addresses_equals_enlarging_the_picture(h: int, w: int, seen: tuple[int, int] | None) -> None:
    given_ = operands(2, h, w, 32, 24)
    size = seen or (2 * h, 2 * w)
    flags: dict[str, Any] = {"upsample_to": list(size)}
    value = conv_w8a8(**given_, **flags)
    x = interpolate(given_["x"].float().permute(0, 3, 1, 2), size=size, mode="nearest").permute(0, 2, 3, 1)
    assert torch.equal(value, conv_w8a8(**{**given_, "x": x.to(torch.int8).contiguous()}))
    assert_as_good_as_torch(value, TORCH(**given_, seen=size), TRUTH(**given_, **flags))


@pytest.mark.parametrize(("c", "c2", "kernel"), [(64, 32, 1), (48, 80, 3), (128, 64, 1)])
def test_two_pictures_side_by_side_keep_their_scales(c: int, c2: int, kernel: int) -> None:
    given_ = operands(2, 5, 6, c, 40, kernel=kernel, c2=c2)
    added = {"time": halves(2, 40)}
    value = conv_w8a8(**given_, **added)
    assert_as_good_as_torch(value, TORCH(**given_, **added), TRUTH(**given_, **added))


def test_two_pictures_are_one_concatenated_where_their_scales_agree() -> None:
    given_ = operands(2, 5, 6, 48, 40, c2=16)
    given_ |= {"x_scale": torch.full((2,), 0.25, device=DEVICE), "x2_scale": torch.full((2,), 0.25, device=DEVICE)}
    given_["bias"] = given_["bias"].float()  # as the output
    value = conv_w8a8(**given_, out_dtype=torch.float32)
    one = {name: value for name, value in given_.items() if name not in ("x2", "x2_scale")}
    one["x"] = torch.cat([given_["x"], given_["x2"]], -1)
    # Powers of two scale exactly; sums below 2^24 are exact in float32.
    assert torch.equal(value, conv_w8a8(**one, out_dtype=torch.float32))
    with pytest.raises(ValueError, match="both or neither"):
        conv_w8a8(**{name: value for name, value in given_.items() if name != "x2_scale"})


def test_an_outlier_channel_keeps_the_others_exact() -> None:
    given_ = operands(2, 5, 6, 64, 32)
    given_["weight_scale"][5] *= 50
    value, truth = conv_w8a8(**given_), TRUTH(**given_)
    others = torch.arange(32, device=DEVICE) != 5
    assert_as_good_as_torch(value, TORCH(**given_), truth)
    assert_as_good_as_torch(value[..., others], TORCH(**given_)[..., others], truth[..., others])


def test_a_black_picture_is_the_bias() -> None:
    given_ = operands(2, 4, 5, 32, 24)
    given_["x"][1] = 0
    given_["x_scale"][1] = 0
    assert (conv_w8a8(**given_)[1] == given_["bias"]).all()


@pytest.mark.parametrize("c", [32, 192])  # one kernel, and a sum in shares
def test_nan_in_a_scale_stays_in_its_picture_or_channel(c: int) -> None:
    given_ = operands(3, 3, 5, c, 24)
    given_["x_scale"][1] = float("nan")
    given_["weight_scale"][9] = float("nan")
    expected = torch.zeros(3, 3, 5, 24, dtype=torch.bool, device=DEVICE)
    expected[1], expected[..., 9] = True, True
    assert torch.equal(conv_w8a8(**given_).isnan(), expected)


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter reads the NaN of float8 as 480")
def test_nan_in_a_float8_pixel_reaches_its_neighbours_and_no_padding() -> None:
    given_ = operands(1, 5, 5, 16, 16, dtype=torch.float8_e4m3fn)
    given_["x"].view(torch.uint8)[0, 2, 2, 3] = 0x7F
    expected = torch.zeros(5, 5, dtype=torch.bool, device=DEVICE)
    expected[1:4, 1:4] = True
    assert torch.equal(conv_w8a8(**given_).isnan().all(-1)[0], expected)


def test_what_float16_cannot_hold_becomes_infinite_and_bfloat16_holds_it() -> None:
    given_ = operands(1, 3, 3, 64, 16)
    given_["x_scale"] = torch.full((1,), 1e4, device=DEVICE)
    assert conv_w8a8(**given_).isinf().any()
    wide = conv_w8a8(**{**given_, "bias": given_["bias"].bfloat16()}, out_dtype=torch.bfloat16)
    assert wide.dtype == torch.bfloat16
    assert wide.isfinite().all()


def test_values_near_the_limit_of_float16_are_rounded_once() -> None:
    given_ = operands(1, 4, 4, 32, 16)
    del given_["bias"]
    truth = TRUTH(**given_)
    given_["weight_scale"] *= 65000 / float(truth.abs().max())
    value, truth = conv_w8a8(**given_), TRUTH(**given_)
    assert value.isfinite().all()
    assert ((value.double() - truth).abs() <= truth.abs() * 2**-11 * 1.001 + 2**-24).all()


@pytest.mark.parametrize("kernel", [1, 3])
def test_float8_behind_the_same_signature(kernel: int) -> None:
    given_ = operands(2, 5, 6, 48, 40, kernel=kernel, dtype=torch.float8_e4m3fn)
    assert_as_good_as_torch(conv_w8a8(**given_), TORCH(**given_), TRUTH(**given_))


def test_two_runs_are_equal_to_the_bit() -> None:
    given_ = operands(2, 6, 6, 64, 48)
    assert torch.equal(conv_w8a8(**given_), conv_w8a8(**given_))


@settings(max_examples=8, deadline=None)
@given(
    b=st.integers(1, 3), h=st.integers(1, 8), w=st.integers(1, 8), c=st.integers(1, 6).map(lambda part: 16 * part),
    n=st.integers(1, 70), kernel=st.sampled_from((1, 3)), stride=st.sampled_from((1, 2)),
)  # fmt: skip
def test_any_shape_in_the_constraints_is_exact(
    b: int, h: int, w: int, c: int, n: int, kernel: int, stride: int
) -> None:  # fmt: skip
    given_ = operands(b, h, w, c, n, kernel=kernel, seed=b * h * w * c * n)
    _, value = bare(architecture_of(given_["x"]), given_["x"], given_["weight"], stride=stride)
    assert torch.equal(value.double(), integer_convolution(given_["x"], given_["weight"], stride=stride))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"c": 4}, "c=4.*multiple of 16.*conv_in"),
        ({"c": 40}, "c=40.*multiple of 16"),
        ({"c2": 8}, "c2=8.*multiple of 16"),
        ({"c": MAX_K // 9 // 16 * 16 + 16}, "exact in 32 bits"),
        ({"b": 0}, "b=0.*at least one picture"),
        ({"kernel": 5}, "kernel=5.*1x1.*3x3"),
        ({"stride": 3}, "stride=3.*1 and 2"),
        ({"upsample_to": (16, 16), "stride": 2}, "stride=2.*enlarged.*stride 1"),
        ({"upsample_to": (16, 16), "kernel": 1}, "kernel=1.*enlarged for a 3x3"),
        ({"upsample_to": (16, 14)}, r"seen=\(16, 14\).*one less"),
        ({"b": 2**16, "h": 2**8, "w": 2**8}, "counted in 32 bits"),
        ({"dtype": "uint8"}, "dtype=uint8.*int8 or float8_e4m3fn"),
        ({"out_dtype": "int8"}, "out_dtype=int8.*float16"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_conv_w8a8(**{"b": 1, "h": 8, "w": 8, "c": 16, "n": 8, "arch": SM89, **shape})


def test_float8_is_refused_before_sm_89() -> None:
    with pytest.raises(UnsupportedShapeError, match=r"sm=86.*sm_89"):
        plan_conv_w8a8(b=1, h=8, w=8, c=16, n=8, arch=architecture(86), dtype="float8_e4m3fn")


def test_a_plan_counts_its_work() -> None:
    plan = plan_conv_w8a8(b=2, h=128, w=128, c=320, n=640, stride=2, arch=SM89, residual=True)
    assert plan.operations == {"int8": 2 * (2 * 64 * 64) * 640 * 320 * 9}
    assert plan.outputs["out"].shape == plan.inputs["residual"].shape == (2, 64, 64, 640)


def test_export_and_compile_take_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
            small: Tensor = conv_w8a8(x, x_scale, weight, weight_scale, bias, stride=2)
            large: Tensor = conv_w8a8(x, x_scale, weight, weight_scale, bias, upsample_to=[8, 10])
            return large[:, : small.shape[1], : small.shape[2]] + small

    given_ = {name: value.cpu() for name, value in operands(2, 4, 5, 16, 8).items()}
    expected = Block()(**given_)
    exported = torch.export.export(Block(), (), given_)
    called = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert called.count("pocketxl.conv_w8a8.default") == 2
    assert torch.equal(exported.module()(**given_), expected)
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**given_), expected)
