"""4-bit convolutions and embeddings: floats are multiplied, half a byte is stored."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketxl.engine.specs import INT, ComponentSpec, Role, TensorSpec
from pocketxl.export.graph.activations import dequantized_bytes
from pocketxl.export.quantize.formats import W4, Kind
from pocketxl.export.targets.cpu.weight_groups import weight_groups

from ....tolerances import MODEL_RELATIVE
from .lowering import Single, all_as, answer, dequantized, image_spec, l2_error, master_of, noise, operators, run

ROWS, IDS = 51, 7


@pytest.mark.parametrize("optimize", [False, True], ids=["as written", "optimized"])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 9, 3, padding=1, stride=2),
        nn.Conv2d(64, 32, 3, padding=1, bias=False),
        nn.Conv2d(5, 7, 1),
        nn.Conv2d(128, 64, 1),
    ],
    ids=["odd", "whole groups", "one short group", "pointwise"],
)
def test_convolution_computes_in_floats(conv: nn.Conv2d, optimize: bool, tmp_path: Path) -> None:
    module = Single(conv)
    spec = image_spec(conv.in_channels, conv.out_channels)
    model = master_of(module, spec)
    weight_groups(model.graph, all_as(Kind.CONV, W4))
    x = noise(2, conv.in_channels, 9, 7)
    x.flat[0] = 300.0
    y = run(model, tmp_path, {"x": x}, optimize=optimize)
    exact = copy.deepcopy(conv).double()
    exact.weight = nn.Parameter(torch.from_numpy(dequantized(conv.weight, W4.weight)))
    assert l2_error(y, answer(exact, x.astype(np.float64))) < MODEL_RELATIVE
    assert dequantized_bytes(model.graph) == 4 * conv.weight.numel(), "one weight at a time, but all in the end"
    assert operators(model) == {"DequantizeLinear": 1, "Reshape": 1, "Conv": 1}


def test_a_convolution_takes_half_a_byte_a_number(tmp_path: Path) -> None:
    module = Single(nn.Conv2d(64, 128, 3, bias=False))
    model = master_of(module, image_spec(64, 128))
    weight_groups(model.graph, all_as(Kind.CONV, W4))
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    run(model, tmp_path, {"x": noise(1, 64, 4, 4)})
    groups = module.layer.weight.numel() / 64
    assert (tmp_path / "model.onnx.data").stat().st_size == pytest.approx(groups * (32 + 4 + 0.5), rel=0.01)


@pytest.mark.parametrize("width", [16, 33, 64, 130])
def test_embedding_reads_the_rows_that_it_needs(width: int, tmp_path: Path) -> None:
    spec = ComponentSpec(
        role=Role.TEXT_ENCODER,
        inputs=(TensorSpec(name="x", shape=("batch", IDS), dtype=INT),),
        outputs=(TensorSpec(name="y", shape=("batch", IDS, width)),),
    )
    module = Single(nn.Embedding(ROWS, width))
    model = master_of(module, spec)
    weight_groups(model.graph, all_as(Kind.EMBEDDING, W4))
    ids = (np.arange(2 * IDS, dtype=np.int64).reshape(2, IDS) * 11) % ROWS
    y = run(model, tmp_path, {"x": ids})
    np.testing.assert_allclose(y, dequantized(module.layer.weight, W4.weight)[ids], rtol=1e-6)
    assert operators(model) == {"GatherBlockQuantized": 1}, "the table is never floats as a whole"
