"""Group norms without casts: the same numbers, and one operator where there were seven."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.targets.rtx.target import rewrite

from ....fixtures.onnx_run import StateDict
from ....tolerances import HALF_NORM_ABSOLUTE


class Normed(nn.Module):
    """A group norm, SiLU, and a layer norm over the width."""

    def __init__(self, channels: int, groups: int, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.last = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(nn.functional.silu(self.norm(x.to(self.norm.weight.dtype))))
        return y


def master(module: nn.Module, make: object, dtype: torch.dtype, width: int = 16) -> ir.Model:
    spec = ComponentSpec(
        role=Role.UNET,
        inputs=(TensorSpec(name="x", shape=("batch", 12, "height", width)),),
        outputs=(TensorSpec(name="y", shape=("batch", 12, "height", width)),),
    )
    return export_master("norms", make, spec, dtype=dtype)  # type: ignore[arg-type]


def norms() -> Normed:
    torch.manual_seed(0)
    module = Normed(12, 4, 16)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module.requires_grad_(False)


@pytest.mark.parametrize("offset", [0.0, 200.0])
def test_the_numbers_are_torch_s(offset: float) -> None:
    """Also far from zero: a variance computed in half precision (or as mean of squares) would be lost there."""
    module = norms()
    model = master(module, lambda: Normed(12, 4, 16), torch.float16)
    rewrite(model)
    attach(model, StateDict(module.state_dict()))
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = (torch.randn(2, 12, 9, 16, generator=torch.Generator().manual_seed(1)) + offset).half()
    (y,) = session.run(None, {"x": x.float().numpy()})
    expected = module(x.float()).numpy()
    assert np.abs(y - expected).max() < HALF_NORM_ABSOLUTE


def test_only_group_norms_lose_their_casts() -> None:
    model = master(norms(), lambda: Normed(12, 4, 16), torch.float16)
    before = Counter(node.op_type for node in model.graph)
    rewrite(model)
    after = Counter(node.op_type for node in model.graph)
    assert before["InstanceNormalization"] == after["GroupNormalization"] == 1
    assert not after["InstanceNormalization"]
    assert before["Cast"] - after["Cast"] == 2
    assert after["LayerNormalization"] == 1
    types = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert types["norm.weight"] == types["norm.bias"] == ir.DataType.FLOAT16
    assert types["last.weight"] == ir.DataType.FLOAT, "layer norms stay as they are"


def test_a_norm_without_casts_is_left_alone() -> None:
    model = master(norms(), lambda: Normed(12, 4, 16), torch.float32)
    rewrite(model)
    assert "GroupNormalization" not in {node.op_type for node in model.graph}
