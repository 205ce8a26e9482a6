"""Attention of 8-bit floats in an `rtx` engine: the stand-in's numbers, and for how few tokens there are kernels."""

from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from pocketxl.engine.compiled.read import read_compiled
from pocketxl.engine.errors import IncompatibleError
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.attention_places import FEWEST_TOKENS, SHARE_STEP
from pocketxl.export.targets.rtx.builder import Order, build_engine
from pocketxl.export.targets.rtx.fp8_attention import fp8_attention, opened, with_tokens
from pocketxl.export.targets.rtx.profiles import profiles

from ....fixtures.attention_block import HEADS, WIDTH, Block, module
from ....fixtures.onnx_run import StateDict
from ....fixtures.smallest import SMALLEST
from ..cpu.lowering import token_spec

STEPS = (2.0**-6, 2.0**-7, 2.0**-5)


def rounded_model() -> tuple[ir.Model, dict[str, int]]:
    model = export_master("unet", Block, token_spec(WIDTH, WIDTH), dtype=torch.float16)
    attach(model, StateDict(module().state_dict()))
    return model, fp8_attention(model.graph, {"attn1": STEPS})


def e4m3(x: np.ndarray, step: float) -> np.ndarray:
    return (x / step).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(step)


def simulated(x: torch.Tensor, *, rounding: bool) -> np.ndarray:
    """Another library's 8-bit floats, everything else in float32."""
    attention = module().attn1.half().float()
    parts = [layer(x).numpy() for layer in (attention.to_q, attention.to_k, attention.to_v)]
    if rounding:
        parts = [e4m3(part, step) for part, step in zip(parts, STEPS, strict=True)]
    query, key, value = (part.reshape(*part.shape[:2], HEADS, -1).swapaxes(1, 2) for part in parts)
    scores = torch.from_numpy(query @ key.swapaxes(2, 3)) / (WIDTH // HEADS) ** 0.5
    shares = scores.softmax(-1).numpy()
    mixed = (e4m3(shares, SHARE_STEP) if rounding else shares) @ value
    y: np.ndarray = attention.to_out[0](torch.from_numpy(mixed.swapaxes(1, 2).reshape(*x.shape))).numpy()
    return y


def off(y: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(y - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("tokens", [1, 40])
def test_the_stand_in_rounds_queries_keys_values_and_shares(tokens: int) -> None:
    model, widths = rounded_model()
    assert widths == {"attn1/e4m3": WIDTH // HEADS}
    opened(model.graph, widths)
    count = Counter(node.op_type for node in model.graph)
    assert (count["Attention"], count["QuantizeLinear"], count["Softmax"]) == (0, 4, 1)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(2, tokens, WIDTH, generator=torch.Generator().manual_seed(1)).half().float()
    (y,) = session.run(None, {"x": x.numpy()})
    exact = simulated(x, rounding=False)
    assert off(y, exact) > 0.01, "rounding is not free"
    assert off(y, simulated(x, rounding=True)) < 0.2 * off(y, exact), "some halves are rounded to the other neighbour"


def test_an_attention_that_is_not_there_is_named() -> None:
    model = export_master("unet", Block, token_spec(WIDTH, WIDTH), dtype=torch.float16)
    with pytest.raises(ValueError, match=r"^the graph has no attention mid_block.attn1$"):
        fp8_attention(model.graph, {"mid_block.attn1": STEPS})


def test_the_range_of_sizes_begins_where_there_are_enough_tokens() -> None:
    from pocketxl.engine.models.unet import UNet

    spec = SMALLEST.unet()
    graph = export_master("unet", lambda: UNet(SMALLEST), spec, dtype=torch.float16).graph
    usual = profiles("base/unet", spec)
    assert with_tokens(usual, spec, graph, []) == usual
    raised = with_tokens(usual, spec, graph, ["mid_block.attentions.0.transformer_blocks.0.attn1"])
    assert raised["latents"][0] == (1, 4, 12, 12), "6 × 6 tokens on the second of two levels"
    assert [raised[name][1:] for name in raised] == [usual[name][1:] for name in usual]
    assert {name for name in raised if raised[name] != usual[name]} == {"latents"}


@pytest.mark.parametrize("archs", [("sm89",), ("sm89", "sm120", "sm121")])
def test_there_are_kernels_for_32_tokens_and_none_for_fewer(archs: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model, _ = rounded_model()
    ir.save(model, tmp_path / "model.onnx")

    def made(fewest: int) -> Counter[tuple[str, ...]]:
        sizes = ((1, fewest, WIDTH), (2, 1024, WIDTH), (2, 4096, WIDTH))
        order = Order(
            component="unet",
            onnx=tmp_path / "model.onnx",
            profiles={"x": sizes},
            architectures=archs,
            engine=tmp_path / "model.engine",
        )
        build_engine(order)
        compiled = read_compiled(order.engine)
        assert compiled is not None
        return compiled.attention_factors

    assert made(FEWEST_TOKENS) == Counter({("fp8_e4m3", "fp8_e4m3", "fp8_e4m3"): 1})
    with pytest.raises(IncompatibleError, match="not supported by a dedicated kernel"):
        made(FEWEST_TOKENS - 1)
