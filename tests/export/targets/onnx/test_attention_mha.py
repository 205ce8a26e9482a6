"""Attention → MultiHeadAttention: the same numbers, causal or not, with another number of keys."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.models.operations import attention
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.targets.onnx.attention_mha import attention_mha

from ....tolerances import MODEL_RELATIVE
from ..cpu.lowering import l2_error, master_of, noise, operators, run

SPEC = ComponentSpec(
    role=Role.UNET,
    inputs=(
        TensorSpec(name="query", shape=("batch", "tokens", 32)),
        TensorSpec(name="key", shape=("batch", "keys", 32)),
        TensorSpec(name="value", shape=("batch", "keys", 32)),
    ),
    outputs=(TensorSpec(name="y", shape=("batch", "tokens", 32)),),
)


class Attend(nn.Module):
    def __init__(self, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, self.heads, self.causal)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize(("keys", "causal"), [(9, False), (5, False), (9, True)])
def test_same_numbers(heads: int, keys: int, causal: bool, tmp_path: Path) -> None:
    module = Attend(heads, causal=causal)
    inputs = {"query": noise(2, 9, 32), "key": noise(2, keys, 32, seed=1), "value": noise(2, keys, 32, seed=2)}
    model = master_of(module, SPEC)
    attention_mha(model.graph)
    assert operators(model) == {"MultiHeadAttention": 1}
    expected = module(*(torch.from_numpy(v) for v in inputs.values())).numpy()
    assert l2_error(run(model, tmp_path, inputs), expected) < MODEL_RELATIVE


def test_attention_with_an_option_that_the_operator_lacks_is_left_alone() -> None:
    model = master_of(Attend(2, causal=False), SPEC)
    (node,) = list(model.graph)
    from onnx_ir import AttrFloat32

    node.attributes.add(AttrFloat32("softcap", 30.0))
    attention_mha(model.graph)
    assert operators(model) == {"Attention": 1}
