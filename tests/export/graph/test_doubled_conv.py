"""A convolution of a doubled picture as four of the picture: the same answer, with fewer products."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.graph.doubled_conv import Turns, doubled_convs
from pocketxl.export.graph.layers import find_layers
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.graph.stand_ins import expand_all
from pocketxl.export.quantize.formats import W8A8_SIGNED, Kind
from pocketxl.export.targets.openvino.products import products

from ...fixtures.onnx_run import StateDict
from ...tolerances import DOUBLED_INT8, MODEL_RELATIVE
from ..targets.cpu.lowering import all_as

TAKEN, OUT = 5, 7


class Doubling(nn.Module):
    """A convolution behind a doubling, as a decoder has it, and one before."""

    def __init__(self, kernel: int = 3, bias: bool = True, stride: int = 1) -> None:
        super().__init__()
        self.before = nn.Conv2d(TAKEN, TAKEN, 3, padding=1)
        self.conv = nn.Conv2d(TAKEN, OUT, kernel, stride, padding=kernel // 2, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(F.interpolate(self.before(x), scale_factor=2.0, mode="nearest"))
        return y


def rewritten(
    module: Doubling, turns: Turns | None = Turns.DEPTH_TO_SPACE, scales: Mapping[str, np.ndarray] | None = None
) -> ir.Model:
    """With convolutions in int8 if there are scales of their inputs. `turns`: None leaves them as they are."""
    spec = ComponentSpec(
        role=Role.VAE_DECODER,
        inputs=(TensorSpec(name="x", shape=("batch", TAKEN, "height", "width")),),
        outputs=(TensorSpec(name="y", shape=("batch", OUT, "rows", "columns")),),
    )
    kernel, bias, stride = module.conv.kernel_size[0], module.conv.bias is not None, module.conv.stride[0]
    model = export_master("decoder", lambda: Doubling(kernel, bias, stride), spec)
    attach(model, StateDict(module.state_dict()))
    if turns is not None:
        doubled_convs(model.graph, find_layers(model.graph), turns)
        expand_all(model.graph)
    if scales is not None:
        products(model.graph, all_as(Kind.CONV, W8A8_SIGNED, input_scales=scales))
    RemoveUnusedNodesPass()(model)
    return model


def apart(module: Doubling, model: ir.Model, x: torch.Tensor) -> float:
    """How far the model's answer is from the module's."""
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    expected = module(x).numpy()
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("turns", Turns)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (5, 3)])
def test_the_answer_is_the_same(bias: bool, height: int, width: int, turns: Turns) -> None:
    torch.manual_seed(0)
    module = Doubling(bias=bias).requires_grad_(False)
    model = rewritten(module, turns)
    count = Counter(node.op_type for node in model.graph)
    assert (count["Resize"], count["Conv"], count["DepthToSpace"]) == (0, 5, turns is Turns.DEPTH_TO_SPACE)
    x = torch.randn(2, TAKEN, height, width)
    assert apart(module, model, x) <= MODEL_RELATIVE


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2)])
def test_others_stay(kernel: int, stride: int) -> None:
    count = Counter(node.op_type for node in rewritten(Doubling(kernel, stride=stride)).graph)
    assert (count["Resize"], count["Conv"], count["DepthToSpace"]) == (1, 2, 0)


@pytest.mark.parametrize("each", [False, True])
def test_in_int8_they_round_the_small_picture_once(each: bool) -> None:
    """A scale for all channels, or one for each: the four are parts of one layer."""
    torch.manual_seed(0)
    module = Doubling().requires_grad_(False)
    x = torch.randn(2, TAKEN, 6, 5)
    sizes = [x.abs().amax((0, 2, 3)), module.before(x).abs().amax((0, 2, 3))]
    steps = [(size if each else size.max().expand(TAKEN)).numpy() / 127 for size in sizes]
    scales = dict(zip(("before", "conv"), steps, strict=True))
    model, usual = rewritten(module, scales=scales), rewritten(module, None, scales)
    count = Counter(node.op_type for node in model.graph)
    assert (count["Resize"], count["Conv"], count["QuantizeLinear"], count["DequantizeLinear"]) == (0, 5, 2, 7)
    assert apart(module, model, x) <= DOUBLED_INT8 * apart(module, usual, x)
