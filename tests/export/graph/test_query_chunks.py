"""Attention with wide heads, its queries in chunks: the same numbers."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from pocketxl.engine.models.blocks import SelfAttention
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.graph.query_chunks import chunk_queries

from ...fixtures.onnx_run import StateDict
from ...tolerances import CHUNKED_ATTENTION_ABSOLUTE

CHUNKS, BEYOND = 8, 256


def master(width: int, heads: int) -> tuple[ir.Model, nn.Module]:
    torch.manual_seed(0)
    module = SelfAttention(width, heads).requires_grad_(False)
    spec = ComponentSpec(
        role=Role.VAE_DECODER,
        inputs=(TensorSpec(name="x", shape=("batch", "pixels", width)),),
        outputs=(TensorSpec(name="y", shape=("batch", "pixels", width)),),
    )
    return export_master("attention", lambda: SelfAttention(width, heads), spec), module


@pytest.mark.parametrize("pixels", [64, 81, CHUNKS, CHUNKS + 1, 3])
def test_the_numbers_are_torch_s(pixels: int) -> None:
    """Multiples of the number of chunks, others, and fewer queries than chunks."""
    model, module = master(BEYOND + 8, 1)
    chunk_queries(model.graph, CHUNKS, beyond=BEYOND)
    attach(model, StateDict(module.state_dict()))
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(2, pixels, BEYOND + 8, generator=torch.Generator().manual_seed(1))
    (y,) = session.run(None, {"x": x.numpy()})
    assert np.abs(y - module(x).numpy()).max() < CHUNKED_ATTENTION_ABSOLUTE


@pytest.mark.parametrize(("width", "heads", "attentions"), [(512, 1, CHUNKS), (512, 2, 1), (128, 2, 1)])
def test_only_wide_heads_are_cut(width: int, heads: int, attentions: int) -> None:
    model, _ = master(width, heads)
    chunk_queries(model.graph, CHUNKS, beyond=BEYOND)
    assert sum(node.op_type == "Attention" for node in model.graph) == attentions
