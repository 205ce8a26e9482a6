"""int8 weights of an `rtx` engine: small channels keep their numbers, and the program says that weights are 8 bits."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from pocketxl.engine.models.unet import UNet
from pocketxl.engine.runners.ort_session import session_options
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.quantize.formats import W8
from pocketxl.export.quantize.rounding import round_weight

from ....fixtures.smallest import SMALLEST
from ....tolerances import HALF_RELATIVE
from ..cpu.lowering import Single, token_spec
from .lowering import build

pytest.importorskip("tensorrt_rtx")
WIDTH, OUT = 64, 48
IMAGE = ComponentSpec(
    role=Role.UNET,
    inputs=(TensorSpec(name="x", shape=("batch", WIDTH, "height", "width")),),
    outputs=(TensorSpec(name="y", shape=("batch", OUT, "height", "width")),),
)


class Cast(Single):
    """One layer that takes inputs of any type, as components do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.layer.weight.dtype))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_small_channels_keep_their_scales(kind: str, tmp_path: Path) -> None:
    """Weights from 0.1 down to 3e-4: scales are as small as 3e-6, where half precision has five bits."""

    def make() -> Cast:
        return Cast(nn.Linear(WIDTH, OUT) if kind == "linear" else nn.Conv2d(WIDTH, OUT, 3, padding=1))

    torch.manual_seed(0)
    module = make().requires_grad_(False)
    weight, bias = module.layer.weight, module.layer.bias
    weight *= torch.logspace(0, -2.5, OUT).view(-1, *[1] * (weight.dim() - 1))
    bias.zero_()
    spec = token_spec(WIDTH, OUT) if kind == "linear" else IMAGE
    made = build("part", module, make, spec, tmp_path, "rtx-sm86", "int8-weight")
    x = torch.randn(2, 9, WIDTH) if kind == "linear" else torch.randn(2, WIDTH, 8, 8)
    x = x.half().float()
    options = session_options(onnxruntime, 1, patterns=True)
    session = onnxruntime.InferenceSession(made.onnx, options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.numpy()})
    assert W8.weight is not None
    rounded = round_weight(weight.half().float().flatten(1).numpy(), W8.weight).dequantized()
    weight.copy_(torch.from_numpy(rounded).view_as(weight))
    ours, theirs = (np.moveaxis(z, -1 if kind == "linear" else 1, 0).reshape(OUT, -1) for z in (y, module(x).numpy()))
    errors = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    assert errors.max() < HALF_RELATIVE


def test_a_unet_s_weights_stay_8_bits_and_its_products_are_of_halves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = UNet(SMALLEST)
    made = build("base/unet", module, lambda: UNet(SMALLEST), SMALLEST.unet(), tmp_path, "rtx-sm86", "int8-weight")
    int8, half, numbers = (
        made.compiled.constants["int8"], made.compiled.constants["half"], sum(p.numel() for p in module.parameters())
    )  # fmt: skip
    assert int8 > 0.9 * numbers
    assert half < 0.1 * numbers
    assert {product.factors for product in made.compiled.products} == {("half", "half")}
    dequantized = {name for name in made.compiled.kernels if name.startswith("CastMulCast")}
    assert {"CastMulCastFc", "CastMulCast"} <= dequantized, "in matrix products; before convolutions"
    assert dequantized <= {"CastMulCastFc", "CastMulCast", "CastMulCastTran"}
    assert made.compiled.attentions == made.operators("Attention")
    assert made.compiled.kernels["SiluGnor"]
