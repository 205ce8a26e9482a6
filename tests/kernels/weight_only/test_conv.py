from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.weight_only.op import conv_w4, conv_w8
from pocketxl.kernels.weight_only.pack import pack_w4, pack_w8, unpack_w4
from pocketxl.kernels.weight_only.plan import plan_conv_w4, plan_conv_w8
from pocketxl.kernels.weight_only.reference import conv_w4_ref, conv_w8_ref, unpack_w8

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned

SM89 = architecture(89)
Op = Callable[..., Tensor]
OPS: dict[int, tuple[Op, Op]] = {4: (conv_w4, conv_w4_ref), 8: (conv_w8, conv_w8_ref)}
BITS = pytest.mark.parametrize("bits", [4, 8])


def operands(
    bits: int, image: tuple[int, int, int, int], cout: int, kernel: int = 3, group: int = 64, seed: int = 0
) -> dict[str, Tensor]:
    """As of a real layer: activations and outputs of order one."""
    random = torch.Generator().manual_seed(seed)
    cin = image[-1]
    weight = torch.randn(cout, kernel, kernel, cin, generator=random) / (kernel * kernel * cin) ** 0.5
    packed, scale = pack_w4(weight, group) if bits == 4 else pack_w8(weight)
    made = {
        "x": torch.randn(image, generator=random).half(),
        "weight": packed,
        "scale": scale,
        "bias": torch.randn(cout, generator=random).half(),
        "time": torch.randn(image[0], cout, generator=random).half(),
    }
    return {name: value.to(DEVICE) for name, value in made.items()}


def with_residual(given_: dict[str, Tensor], height: int, width: int) -> dict[str, Tensor]:
    shape = (given_["x"].shape[0], height, width, given_["weight"].shape[0])
    return {**given_, "residual": torch.randn(shape, generator=torch.Generator().manual_seed(1)).half().to(DEVICE)}


def torch_path(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
) -> Tensor:
    """The layer as torch computes it on weights that were dequantized before, with torch's own upsampling."""
    exact = unpack_w4(weight, scale, torch.float64) if weight.dtype == torch.uint8 else unpack_w8(weight, scale)
    picture = x.permute(0, 3, 1, 2)
    if upsample_to is not None:
        picture = torch.nn.functional.interpolate(picture, size=upsample_to, mode="nearest")
    filters = exact.to(x.dtype).permute(0, 3, 1, 2)
    value = torch.nn.functional.conv2d(picture, filters, bias, stride=stride, padding=weight.shape[1] // 2)
    value = value.permute(0, 2, 3, 1)
    value = value if time is None else value + time[:, None, None]
    return value if residual is None else value + residual


TORCH: Op = torch_path  # takes the operands by name, from a dictionary


def poisoned_run(bits: int, given_: dict[str, Tensor], group: int = 64, **options: Any) -> Tensor:
    b, h, w, c = given_["x"].shape
    shape: Any = {"b": b, "h": h, "w": w, "c": c, "arch": architecture_of(given_["x"])}
    shape |= {"n": given_["weight"].shape[0], "kernel": given_["weight"].shape[1], **options}
    shape |= {name: name in given_ for name in ("bias", "time", "residual")}
    plan = plan_conv_w4(**shape, group=group) if bits == 4 else plan_conv_w8(**shape)
    return execute(plan, given_, allocate=poisoned)["out"]


@BITS
@pytest.mark.parametrize(
    ("image", "cout", "kernel", "stride", "upsample_to", "size"),
    [
        ((2, 6, 9, 64), 40, 3, 1, None, (6, 9)),
        ((1, 3, 7, 128), 24, 3, 1, None, (3, 7)),
        ((2, 6, 9, 64), 24, 3, 2, None, (3, 5)),
        ((2, 4, 6, 64), 24, 3, 1, (8, 12), (8, 12)),
        ((1, 4, 5, 64), 24, 3, 1, (7, 9), (7, 9)),
        ((2, 6, 9, 128), 72, 1, 1, None, (6, 9)),
        ((3, 1, 1, 64), 16, 3, 1, None, (1, 1)),
    ],
)
def test_is_as_good_as_torch_in_float16(
    bits: int,
    image: tuple[int, int, int, int],
    cout: int,
    kernel: int,
    stride: int,
    upsample_to: tuple[int, int] | None,
    size: tuple[int, int],
) -> None:
    given_ = with_residual(operands(bits, image, cout, kernel), *size)
    value = poisoned_run(bits, given_, stride=stride, upsample_to=upsample_to)
    assert value.shape == (image[0], *size, cout)
    options: Any = {"stride": stride, "upsample_to": None if upsample_to is None else list(upsample_to)}
    truth = OPS[bits][1](**given_, **options)
    assert_as_good_as_torch(value, TORCH(**given_, **options), truth)
    assert torch.equal(OPS[bits][0](**given_, **options), value), "the op runs the same plan, with the same result"


@pytest.mark.parametrize("group", [32, 128])
def test_other_groups(group: int) -> None:
    given_ = operands(4, (1, 3, 5, 128), 20, group=group)
    assert_as_good_as_torch(poisoned_run(4, given_, group), TORCH(**given_), OPS[4][1](**given_))


@BITS
def test_channels_of_the_base_and_the_refiner(bits: int) -> None:
    for cin, kernel in ((320, 3), (384, 1), (960, 1)):
        given_ = operands(bits, (1, 2, 3, cin), 20, kernel)
        assert_as_good_as_torch(OPS[bits][0](**given_), TORCH(**given_), OPS[bits][1](**given_))


@BITS
def test_every_option_may_be_absent(bits: int) -> None:
    given_ = operands(bits, (2, 3, 4, 64), 24)
    for absent in (("time",), ("bias",), ("bias", "time")):
        some = {name: value for name, value in given_.items() if name not in absent}
        assert_as_good_as_torch(OPS[bits][0](**some), TORCH(**some), OPS[bits][1](**some))


@BITS
def test_every_tap_meets_its_own_pixel_and_channel(bits: int) -> None:
    """A picture with a single one gives the filter back, turned around, exactly."""
    random = torch.Generator().manual_seed(0)
    quantized = torch.randint(*((-8, 8) if bits == 4 else (-127, 128)), (10, 3, 3, 128), generator=random)
    if bits == 4:
        runs = (quantized + 8).view(90, 2, 2, 32).to(torch.uint8)
        weight = (runs[:, :, 0] | runs[:, :, 1] << 4).reshape(10, 3, 3, 64)
        scale = torch.ones(10, 3, 3, 2).half()
    else:
        weight, scale = quantized.to(torch.int8), torch.ones(10)
    for channel in (31, 32, 127):
        x = torch.zeros(1, 4, 5, 128).half()
        x[0, 1, 2, channel] = 1
        value = poisoned_run(bits, {"x": x.to(DEVICE), "weight": weight.to(DEVICE), "scale": scale.to(DEVICE)})
        expected = torch.zeros(4, 5, 10).half()
        expected[0:3, 1:4] = quantized[..., channel].half().flip(1, 2).permute(1, 2, 0)
        assert torch.equal(value[0].cpu(), expected)


@BITS
def test_outliers(bits: int) -> None:
    given_ = operands(bits, (1, 4, 5, 64), 24)
    given_["x"][..., 5] *= 50
    given_["scale"][3] *= 50
    assert_as_good_as_torch(OPS[bits][0](**given_), TORCH(**given_), OPS[bits][1](**given_))


@BITS
def test_nan_reaches_the_pixels_around_it_and_its_image_only(bits: int) -> None:
    given_ = operands(bits, (2, 5, 6, 64), 16)
    given_["x"][1, 2, 3, 40] = float("nan")
    wrong = OPS[bits][0](**given_).isnan()
    expected = torch.zeros_like(wrong)
    expected[1, 1:4, 2:5] = True
    assert torch.equal(wrong, expected)


@BITS
def test_a_picture_of_zeros_is_bias_and_time(bits: int) -> None:
    given_ = operands(bits, (2, 3, 3, 64), 16)
    given_["x"].zero_()
    expected = (given_["bias"].float() + given_["time"].float()).half()[:, None, None].expand(2, 3, 3, 16)
    assert torch.equal(OPS[bits][0](**given_), expected)


@BITS
def test_two_runs_are_equal_to_the_bit(bits: int) -> None:
    given_ = operands(bits, (1, 4, 5, 64), 24)
    assert torch.equal(OPS[bits][0](**given_), OPS[bits][0](**given_))


@settings(max_examples=8, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    batch=st.integers(1, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    cout=st.integers(1, 70),
    kernel=st.sampled_from([(1, 1), (3, 1), (3, 2)]),
)
def test_any_shape_in_the_constraints(
    bits: int, batch: int, height: int, width: int, cout: int, kernel: tuple[int, int]
) -> None:
    given_ = operands(bits, (batch, height, width, 64), cout, kernel[0], seed=height * width * cout)
    options: Any = {"stride": kernel[1]}
    value = poisoned_run(bits, given_, **options)
    assert_as_good_as_torch(value, TORCH(**given_, **options), OPS[bits][1](**given_, **options))


@pytest.mark.gpu
@BITS
def test_bfloat16(bits: int) -> None:
    given_ = operands(bits, (2, 12, 18, 320), 136)
    given_ |= {name: given_[name].bfloat16() for name in ("x", "bias", "time")}
    assert_as_good_as_torch(OPS[bits][0](**given_), TORCH(**given_), OPS[bits][1](**given_))


def test_what_it_cannot_take_says_why() -> None:
    picture: Any = {"b": 1, "h": 8, "w": 8, "n": 8, "arch": SM89}
    for plan, c, options, reason in (
        (plan_conv_w4, 4, {}, "conv_in with its 4"),
        (plan_conv_w8, 96, {}, "runs of 64"),
        (plan_conv_w4, 320, {"group": 128}, "multiple of the group"),
        (plan_conv_w4, 64, {"kernel": 5}, "1×1, or 3×3"),
        (plan_conv_w8, 64, {"stride": 3}, "the stride is 1, or 2"),
        (plan_conv_w8, 64, {"kernel": 1, "stride": 2}, "the stride is 1, or 2"),
        (plan_conv_w4, 64, {"upsample_to": (16, 17)}, "twice the size, or to one less"),
        (plan_conv_w4, 64, {"upsample_to": (16, 16), "stride": 2}, "only a 3×3 filter of stride 1"),
        (plan_conv_w8, 64, {"dtype": "float32"}, "float16, bfloat16"),
        (plan_conv_w8, 2**26, {}, "counted in 32 bits"),
    ):
        with pytest.raises(UnsupportedShapeError, match=f"{plan.__name__.removeprefix('plan_')} cannot .*{reason}"):
            plan(**picture, c=c, **options)
    given_ = operands(4, (1, 2, 2, 64), 8)
    with pytest.raises(UnsupportedShapeError, match=r"weight is \(8, 3, 3, 64\)"):
        conv_w4(**{**given_, "x": torch.zeros(1, 2, 2, 128, device=DEVICE).half()})


@BITS
@pytest.mark.parametrize("grow", [False, True])
def test_exports_and_compiles_at_any_size(bits: int, grow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)
    op = OPS[bits][0]
    given_ = {name: value.cpu() for name, value in operands(bits, (2, 6, 8, 64), 16).items()}

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, time: Tensor) -> Tensor:
            size = [2 * x.shape[1], 2 * x.shape[2]] if grow else None
            return op(x, weight, scale, bias, time, None, 1 if grow else 2, size) * 2

    arguments = tuple(given_.values())
    expected = Layer()(*arguments)
    height, width = torch.export.Dim("height", min=4, max=512), torch.export.Dim("width", min=4, max=512)
    exported = torch.export.export(Layer(), arguments, dynamic_shapes=({1: height, 2: width}, None, None, None, None))
    assert f"pocketxl.conv_w{bits}" in exported.graph_module.code
    assert torch.equal(exported.module()(*arguments), expected)
    other = (torch.randn(2, 9, 5, 64).half(), *arguments[1:])
    assert torch.equal(exported.module()(*other), Layer()(*other))
    assert torch.equal(torch.compile(Layer(), backend="aot_eager")(*arguments), expected)
