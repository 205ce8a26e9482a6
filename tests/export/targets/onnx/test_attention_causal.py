"""Causal attention in ordinary operators: the same numbers, and no token sees those behind it."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.models.operations import attention
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.targets.onnx.attention_causal import attention_causal

from ....tolerances import MODEL_RELATIVE
from ..cpu.lowering import l2_error, master_of, noise, operators, run

WIDTH, TOKENS = 32, 9
SPEC = ComponentSpec(
    role=Role.TEXT_ENCODER,
    inputs=tuple(TensorSpec(name=name, shape=("batch", TOKENS, WIDTH)) for name in ("query", "key", "value")),
    outputs=(TensorSpec(name="y", shape=("batch", TOKENS, WIDTH)),),
)


class Attend(nn.Module):
    def __init__(self, heads: int, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, self.heads, self.causal)


def rewritten(module: Attend) -> ir.Model:
    model = master_of(module, SPEC)
    attention_causal(model.graph, tokens=TOKENS, width=WIDTH, dtype=ir.DataType.FLOAT)
    return model


@pytest.mark.parametrize("heads", [1, 4])
def test_same_numbers(heads: int, tmp_path: Path) -> None:
    module = Attend(heads)
    # Large enough that the softmax is far from uniform, and a mask that only dampened would show.
    inputs = {name: 3 * noise(2, TOKENS, WIDTH, seed=seed) for seed, name in enumerate(("query", "key", "value"))}
    model = rewritten(module)
    assert not operators(model).keys() & {"Attention", "MultiHeadAttention"}
    found = run(model, tmp_path, inputs)
    expected = module(*(torch.from_numpy(v) for v in inputs.values())).numpy()
    assert l2_error(found, expected) < MODEL_RELATIVE
    assert np.allclose(found[:, 0], inputs["value"][:, 0], rtol=MODEL_RELATIVE), "the first token has only itself"


def test_attention_without_a_mask_is_left_alone() -> None:
    assert operators(rewritten(Attend(2, causal=False))) == {"Attention": 1}
