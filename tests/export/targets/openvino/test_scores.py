"""int8 scores of self-attention: the numbers that OpenVINO computes, in one kernel, and which recipes have them."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from pocketxl.engine.runners.processor import lacks_vnni
from pocketxl.engine.specs import Role
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.formats import A8_SCORES, FLOAT32, Format, Kind
from pocketxl.export.quantize.query_keys import QueryKeys
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.openvino.scores import int8_scores

from ....fixtures.attention_block import HEADS, WIDTH, Block, module
from ....fixtures.calibration import shown
from ....fixtures.onnx_run import StateDict
from ....fixtures.smallest import SMALLEST
from ....tolerances import OPENVINO_PRODUCT_RELATIVE, SCORES_RELATIVE
from ..cpu.lowering import token_spec

ov = pytest.importorskip("openvino")
NAME = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


def tokens(count: int = 40) -> np.ndarray:
    """One channel is far from 0, as in the streams of public checkpoints, so that keys are."""
    x = np.random.default_rng(1).standard_normal((2, count, WIDTH), np.float32)
    x[..., 7] += 8
    return x


def projected(x: np.ndarray) -> list[np.ndarray]:
    attention = module().attn1
    return [layer(torch.from_numpy(x)).numpy() for layer in (attention.to_q, attention.to_k, attention.to_v)]


def numbers_of(x: np.ndarray) -> QueryKeys:
    queries, keys, _ = (part.reshape(-1, WIDTH) for part in projected(x))
    flat = x.reshape(-1, WIDTH)
    return QueryKeys.of(shown(flat, queries), shown(flat, keys))


def simulated(x: np.ndarray, numbers: QueryKeys | None) -> np.ndarray:
    """In whole steps, everything else in float32."""
    queries, keys, values = projected(x)
    if numbers is not None:
        queries, keys = numbers.rounded(queries, keys)
    q, k, v = (torch.from_numpy(p).view(*x.shape[:2], HEADS, -1).transpose(1, 2) for p in (queries, keys, values))
    mixed = (q @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
    y: np.ndarray = module().attn1.to_out[0](mixed.transpose(1, 2).reshape(*x.shape)).numpy()
    return y


def off(y: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(y - expected) / np.linalg.norm(expected))


@pytest.mark.skipif(lacks_vnni(), reason="OpenVINO adds 8-bit products in 16 bits here")
def test_openvino_multiplies_them_in_its_kernel_of_attention(tmp_path: Path) -> None:
    x = tokens()
    model, numbers = export_master("unet", Block, token_spec(WIDTH, WIDTH)), numbers_of(x)
    attach(model, StateDict(module().state_dict()))
    int8_scores(model.graph, {"attn1": numbers})
    ir.save(model, tmp_path / "model.onnx")
    core = ov.Core()
    read = core.read_model(tmp_path / "model.onnx")
    read.reshape({"x": list(x.shape)})
    made = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    (y,) = made({"x": x}).values()
    exact = simulated(x, None)
    assert off(y, exact) > 1e-3, "rounding is not free"
    assert off(y, exact) < SCORES_RELATIVE
    assert off(y, simulated(x, numbers)) < OPENVINO_PRODUCT_RELATIVE
    nodes = [node.get_rt_info() for node in made.get_runtime_model().get_ops()]
    kinds = [(node["layerType"].astype(str), node["runtimePrecision"].astype(str)) for node in nodes]
    assert ("Subgraph", "i8") in kinds
    assert not {"Softmax", "MatMul", "ScaledDotProductAttention"} & {kind for kind, _ in kinds}, "scores have a place"


def test_an_attention_that_is_not_there_is_named() -> None:
    model = export_master("unet", Block, token_spec(WIDTH, WIDTH))
    with pytest.raises(ValueError, match=r"^the graph has no attention attn9$"):
        int8_scores(model.graph, {"attn9": numbers_of(tokens())})


@pytest.mark.parametrize(("name", "format", "after"), [("int8", A8_SCORES, (FLOAT32,)), ("fp32", FLOAT32, ())])
def test_where_products_are_int8_scores_are_too(name: str, format: Format, after: tuple[Format, ...]) -> None:
    target = TARGETS["openvino"]
    recipe = target.suited(fitted(RECIPES[name], target), SMALLEST)
    assert recipe.format(Role.UNET, Kind.ATTENTION, NAME) == format
    assert recipe.after(Kind.ATTENTION, format) == after
