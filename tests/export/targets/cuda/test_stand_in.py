"""What holds a `cuda` engine to its reference without a GPU computes what the ops of its calls compute."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.runners.ort_session import session_options
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.formats import FLOAT16, W4_HALVES, W4A8_TOKEN, W8A8_SIGNED, W8A8_TOKEN, Format, Kind
from pocketxl.export.quantize.score_blocks import ScoreBlocks
from pocketxl.export.targets.cuda.stand_in import stand_in
from pocketxl.export.targets.cuda.stored import Inverse, Packer, Part, Weight
from pocketxl.kernels.ops import attention_int8, linear_w4, linear_w4a8, linear_w8a8, quantize_per_token
from pocketxl.kernels.quantize.reference import narrowed_ref

from ....fixtures import attention_block
from ....fixtures.onnx_run import StateDict
from ....tolerances import ATTENTION_STAND_IN_RELATIVE, HALF_RELATIVE
from ..cpu.lowering import all_as, token_spec
from ..rtx.test_weight_only import Cast

WIDTH, OUT = 128, 48


@pytest.mark.parametrize("tokens", [64, 90])
def test_attention_is_what_its_op_gives_on_geforce_cards(tokens: int) -> None:
    x = torch.randn(2, tokens, attention_block.WIDTH, generator=torch.Generator().manual_seed(1)).half()
    x[..., 7] += 8  # as in public checkpoints, so that keys are far from 0
    block = attention_block.module()
    numbers = replace(
        all_as(Kind.LINEAR, FLOAT16), attentions={"attn1": ScoreBlocks(heads=attention_block.HEADS, values=1.0)}
    )
    spec = token_spec(attention_block.WIDTH, attention_block.WIDTH)
    model = export_master("unet", attention_block.Block, spec)
    attach(model, StateDict(block.state_dict()))
    stand_in(model.graph, numbers)
    (found,) = session_of(model).run(None, {"x": x.float().numpy()})

    layers = block.attn1
    q, k, v = (layer(x.float()).half() for layer in (layers.to_q, layers.to_k, layers.to_v))
    mixed = attention_int8(q, k, v, attention_block.HEADS, accumulate_half=True)
    expected = layers.to_out[0](mixed.float())
    off = (torch.from_numpy(found) - expected).norm() / expected.norm()
    exact = block(x.float())
    assert off < ATTENTION_STAND_IN_RELATIVE
    assert off < 0.5 * float((exact - expected).norm() / expected.norm()), "rounding is what it shows"


def session_of(model: ir.Model) -> onnxruntime.InferenceSession:
    options = session_options(onnxruntime, 1, patterns=True)
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def by_the_ops(format: Format, x: Tensor, numbers: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    if format == W4_HALVES:
        made: Tensor = linear_w4(x, numbers, scale, bias)
    else:
        q, x_scale = quantize_per_token(x)
        op = linear_w4a8 if format == W4A8_TOKEN else linear_w8a8
        made = op(q, x_scale, numbers, scale, bias)
    return made


def test_a_layer_with_known_scales_is_what_its_op_gives() -> None:
    torch.manual_seed(0)
    module = Cast(nn.Linear(WIDTH, OUT)).requires_grad_(False).half().float()
    x = torch.randn(2, 9, WIDTH).half()
    x[..., 3] *= 30
    scale = np.where(np.arange(WIDTH) == 3, 0.5, 0.015).astype(np.float32)  # which a few numbers are beyond
    plain = all_as(Kind.LINEAR, W8A8_SIGNED)
    numbers = replace(plain, input_scales={"layer": scale})
    model = export_master("unet", lambda: Cast(nn.Linear(WIDTH, OUT)), token_spec(WIDTH, OUT), dtype=torch.float16)
    state = StateDict(module.state_dict())
    attach(model, state)
    stand_in(model.graph, numbers)
    (found,) = session_of(model).run(None, {"x": x.float().numpy()})

    packer, weight = Packer(state, numbers), Weight(layers=("layer",), format=W8A8_SIGNED)
    weights, scales, bias = (
        torch.from_numpy(packer.array(Part(weight=weight, part=part))) for part in ("numbers", "scale", "bias")
    )
    inverse = torch.from_numpy(packer.array(Inverse(layer="layer")))
    q = narrowed_ref(x.double(), inverse).to(torch.int8)
    assert (q.abs() == 127).any()
    expected = linear_w8a8(q, None, weights, scales, bias).float()
    assert float((torch.from_numpy(found) - expected).norm() / expected.norm()) < HALF_RELATIVE
    assert float((module(x.float()) - expected).norm() / expected.norm()) > HALF_RELATIVE, "it is rounded"
    model = export_master("unet", lambda: Cast(nn.Linear(WIDTH, OUT)), token_spec(WIDTH, OUT), dtype=torch.float16)
    attach(model, state)
    with pytest.raises(ValueError, match="layer has no calibrated scales"):
        stand_in(model.graph, plain)
    with pytest.raises(ValueError, match="layer has no calibrated scales"):
        Packer(state, plain).array(Inverse(layer="layer"))


@pytest.mark.parametrize("format", [W4A8_TOKEN, W4_HALVES, W8A8_TOKEN], ids=str)
def test_a_linear_layer_is_what_its_op_gives(format: Format) -> None:
    torch.manual_seed(0)
    module = Cast(nn.Linear(WIDTH, OUT)).requires_grad_(False).half().float()  # the stand-in has its weights as halves
    x = torch.randn(2, 9, WIDTH).half()
    x[0, :, 3] *= 30  # what decides the range of those tokens
    spec, numbers = token_spec(WIDTH, OUT), all_as(Kind.LINEAR, format)
    state = StateDict(module.state_dict())
    model = export_master("unet", lambda: Cast(nn.Linear(WIDTH, OUT)), spec, dtype=torch.float16)
    attach(model, state)
    stand_in(model.graph, numbers)
    (found,) = session_of(model).run(None, {"x": x.float().numpy()})
    packer, weight = Packer(state, numbers), Weight(layers=("layer",), format=format)
    parts = [torch.from_numpy(packer.array(Part(weight=weight, part=part))) for part in ("numbers", "scale", "bias")]
    expected = by_the_ops(format, x, *parts).float()
    assert float((torch.from_numpy(found) - expected).norm() / expected.norm()) < HALF_RELATIVE
    assert float((module(x.float()) - expected).norm() / expected.norm()) > HALF_RELATIVE, "it is rounded"
