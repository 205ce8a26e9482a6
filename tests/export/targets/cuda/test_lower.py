"""What is no part of a step is refused, by the name of the node."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.models.clip import ClipTextEncoder
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.operations import upsample_like
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.graph.master import export_master
from pocketxl.export.targets.cuda.lower import RULES, steps_of

from ....fixtures.networks import clip_pair, unet_pair

PICTURE = ("batch", 4, "height", "width")
TOKENS = ("batch", "tokens", 4)


@pytest.fixture(scope="module")
def unet() -> ir.Model:
    architecture = unet_pair("miniature").architecture
    return export_master("base/unet", lambda: UNet(architecture), architecture.unet(), dtype=torch.float16)


@pytest.fixture(scope="module")
def text_encoder() -> ir.Model:
    architecture = replace(clip_pair(pooled=True).architecture, eos_token_id=3)
    return export_master("text_encoder", lambda: ClipTextEncoder(architecture), architecture.component())


@pytest.fixture(scope="module")
def conditioner() -> ir.Model:
    architecture = unet_pair("lcm").architecture
    return export_master("conditioner", lambda: Conditioner(architecture), architecture.conditioner())


@pytest.mark.parametrize("op", sorted(RULES))
@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_no_node_is_passed_over(
    unet: ir.Model, text_encoder: ir.Model, conditioner: ir.Model, op: str, which: int
) -> None:
    models = [model for model in (unet, text_encoder, conditioner) if any(node.op_type == op for node in model.graph)]
    node = [node for node in models[0].graph if node.op_type == op][which]
    node.op_type = "Surprise"
    try:
        with pytest.raises(IncompatibleError, match=rf"no step for the node '{re.escape(node.name)}', Surprise\("):
            steps_of(models[0])
    finally:
        node.op_type = op


def test_an_operator_of_another_domain_is_another_operator(unet: ir.Model) -> None:
    node = next(node for node in unet.graph if node.op_type == "Conv")
    node.domain = "com.microsoft"
    try:
        with pytest.raises(IncompatibleError, match="'conv_in/Conv'"):
            steps_of(unet)
    finally:
        node.domain = ""


@pytest.mark.parametrize(
    ("op", "attribute", "value"),
    [
        ("Gather", "axis", 1),
        ("GatherND", "batch_dims", 0),
        ("ArgMax", "select_last_index", 1),
        ("ArgMax", "keepdims", 1),
        ("ArgMax", "axis", 0),
    ],
)
def test_words_are_looked_up_and_ends_found_in_one_way(
    text_encoder: ir.Model, op: str, attribute: str, value: int
) -> None:
    node = next(node for node in text_encoder.graph if node.op_type == op)
    before = node.attributes.get(attribute)
    node.attributes[attribute] = ir.AttrInt64(attribute, value)
    try:
        with pytest.raises(IncompatibleError, match=f"no step for the node '.*{op}"):
            steps_of(text_encoder)
    finally:
        if before is None:
            del node.attributes[attribute]
        else:
            node.attributes[attribute] = before


class Network(nn.Module):
    """One layer and a function of it and its input."""

    def __init__(self, layer: nn.Module, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x: Tensor) -> Tensor:
        """A tensor → a tensor."""
        return self.function(self.layer, x)


def convolved(**changes: Any) -> nn.Conv2d:
    return nn.Conv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, **changes})


def activated_and_kept(layer: Any, x: Tensor) -> Tensor:
    """The sum needs a linear's output from before its activation."""
    y = layer(x)
    return F.gelu(y) + y  # type: ignore[no-any-return]


def normed_and_kept(layer: Any, x: Tensor) -> Tensor:
    """The sum needs a norm's output from before its SiLU."""
    y = layer(x)
    return F.silu(y) + y  # type: ignore[no-any-return]


def seen_twice(layer: Any, x: Tensor) -> Tensor:
    """Two forms of a linear's output are read, each by one sum."""
    y = layer(x.flatten(2).transpose(1, 2))
    first, second = (y.transpose(1, 2).reshape_as(x) for _ in range(2))
    return (first + x) + (second + x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("layer", "function", "named"),
    [
        (convolved(dilation=2, padding=2), lambda f, x: f(x), "layer/Conv"),
        (convolved(groups=2), lambda f, x: f(x), "layer/Conv"),
        (convolved(stride=3), lambda f, x: f(x), "layer/Conv"),
        (convolved(padding=0), lambda f, x: f(x), "layer/Conv"),
        (convolved(kernel_size=2), lambda f, x: f(x), "layer/Conv"),
        (convolved(kernel_size=(3, 1), padding=(1, 0)), lambda f, x: f(x), "layer/Conv"),
        (convolved(), lambda f, x: f(f(x)), "layer/Conv.1"),
        (convolved(), lambda f, x: F.silu(f(x)), "Mul"),
        (convolved(), lambda f, x: F.interpolate(f(x), scale_factor=3.0), "Resize"),
        # At level 1, whose size may be the half of an odd one: twice that is not the size of level 0.
        (convolved(stride=2), lambda f, x: F.interpolate(f(x), scale_factor=2.0), "Resize"),
        (convolved(), lambda f, x: f(x) + 1.0, "Add"),
        (convolved(), lambda f, x: f(x + x), "Add"),
        (convolved(), lambda f, x: f(x.transpose(2, 3)), "Transpose"),
        (convolved(in_channels=12), lambda f, x: f(torch.cat([x, x, x], 1)), "Concat"),
        (convolved(), lambda f, x: f(upsample_like(x, x)), "Resize"),
        (nn.GroupNorm(2, 4), normed_and_kept, "Mul"),
        (nn.Linear(4, 4), seen_twice, "Add"),
    ],
)
def test_other_forms_over_pictures_are_refused(layer: nn.Module, function: Any, named: str) -> None:
    refused(layer, function, PICTURE, named)


@pytest.mark.parametrize(
    ("layer", "function", "named"),
    [
        (nn.Linear(4, 4), activated_and_kept, "Gelu"),
        (nn.Linear(4, 4), lambda f, x: F.gelu(f(x), approximate="tanh"), "Gelu"),
        (nn.Linear(4, 4), lambda f, x: F.gelu(F.gelu(f(x))), "Gelu.1"),
        (nn.Linear(4, 4), lambda f, x: F.gelu(f(x) + x), "Gelu"),
        (nn.Linear(4, 4), lambda f, x: f(x) * (2.0 * x).sigmoid(), "Mul.1"),
        (nn.Linear(4, 4), lambda f, x: f(x) * f(x), "layer/MatMul.1"),
        (nn.Linear(4, 8), lambda f, x: f(x).chunk(2, dim=-1)[0] * f(x).chunk(2, dim=-1)[1], "layer/MatMul.1"),
        (nn.Linear(4, 4), lambda f, x: f(x) + x + x, "Add.1"),
        (nn.Linear(4, 4), lambda f, x: f(x) + f.bias, "Add"),
        (nn.Linear(4, 4), lambda f, x: F.gelu(F.linear(x, f.weight)) + f.bias, "Add"),
        (nn.Linear(4, 4), lambda f, x: f(x).float().to(torch.int32), "Cast"),
    ],
)
def test_other_forms_over_tokens_are_refused(layer: nn.Module, function: Any, named: str) -> None:
    refused(layer, function, TOKENS, named)


@pytest.mark.parametrize("function", [lambda f, x: f(x).sigmoid(), lambda f, x: F.interpolate(f(x), scale_factor=2.0)])
def test_an_output_that_no_step_makes_is_refused(function: Any) -> None:
    with pytest.raises(IncompatibleError, match="no step of the cuda target makes the output 'y'"):
        steps_of(traced(convolved(), function, PICTURE))


def traced(layer: nn.Module, function: Any, shape: tuple[int | str, ...]) -> ir.Model:
    x, y = TensorSpec(name="x", shape=shape), TensorSpec(name="y", shape=shape)
    spec = ComponentSpec(role=Role.UNET, inputs=(x,), outputs=(y,))
    return export_master("probe", lambda: Network(layer, function).to("meta"), spec)


def refused(layer: nn.Module, function: Any, shape: tuple[int | str, ...], named: str) -> None:
    with pytest.raises(IncompatibleError, match=rf"no step for the node '{re.escape(named)}', "):
        steps_of(traced(layer, function, shape))
