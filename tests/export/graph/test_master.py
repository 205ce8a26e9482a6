"""The ONNX master computes what the torch module does, in the declared form, and holds no weights before `attach`."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.architecture import SizeIds
from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.models.clip import ClipTextEncoder
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.checkpoint.unet_configuration import unet_architecture
from pocketxl.export.graph.master import attach, export_master

from ...fixtures.compare import relative_error
from ...fixtures.networks import (
    CROSS_DOWN,
    CROSS_UP,
    DOWN,
    UNETS,
    UP,
    UNetPair,
    clip_pair,
    json_file,
    unet_inputs,
    unet_pair,
    vae_pair,
)
from ...fixtures.onnx_run import StateDict, run_onnx
from ...tolerances import HALF_RELATIVE, MODEL_RELATIVE

SDXL: Mapping[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "use_linear_projection": True,
}
STANDARD_OPERATORS = {
    "Add", "ArgMax", "Attention", "Cast", "Concat", "Conv", "Cos", "Equal", "Gather", "GatherND", "Gelu",
    "InstanceNormalization", "LayerNormalization", "MatMul", "Mul", "Reshape", "Resize", "Shape", "Sigmoid", "Sin",
    "Split", "Transpose", "Unsqueeze",
}  # fmt: skip
FULL_SIZE_UNETS: Mapping[str, Mapping[str, Any]] = {
    "base": {
        **SDXL,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": [DOWN, CROSS_DOWN, CROSS_DOWN],
        "up_block_types": [CROSS_UP, CROSS_UP, UP],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "projection_class_embeddings_input_dim": 2816,
    },
    "refiner": {
        **SDXL,
        "block_out_channels": [384, 768, 1536, 1536],
        "down_block_types": [DOWN, CROSS_DOWN, CROSS_DOWN, DOWN],
        "up_block_types": [UP, CROSS_UP, CROSS_UP, UP],
        "transformer_layers_per_block": 4,
        "attention_head_dim": [6, 12, 24, 24],
        "cross_attention_dim": 1280,
        "projection_class_embeddings_input_dim": 2560,
    },
}
ONE_INPUT = (TensorSpec(name="x", shape=("batch", 4)),)
ONE_OUTPUT = (TensorSpec(name="y", shape=("batch", 4)),)


@pytest.fixture(params=UNETS, scope="module")
def pair(request: pytest.FixtureRequest) -> UNetPair:
    torch.manual_seed(5)
    return unet_pair(request.param)


def _conditioner(pair: UNetPair, **options: Any) -> ir.Model:
    a = pair.architecture
    return export_master("base/conditioner", lambda: Conditioner(a), a.conditioner(), **options)


def _unet(pair: UNetPair, **options: Any) -> ir.Model:
    return export_master("base/unet", lambda: UNet(pair.architecture), pair.architecture.unet(), **options)


def _step(pair: UNetPair, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The U-Net's inputs by name, at the second timestep."""
    conditions = {name: x for name, x in inputs.items() if name != "latents"}
    vectors, *key_values = pair.conditioner.float()(**conditions)
    names = [t.name for t in pair.architecture.key_values()]
    return {"latents": inputs["latents"], "time_vectors": vectors[1], **dict(zip(names, key_values, strict=True))}


def _half_edges(spec: ComponentSpec) -> ComponentSpec:
    tensors = [[dataclasses.replace(t, dtype="float16") for t in side] for side in (spec.inputs, spec.outputs)]
    return ComponentSpec(role=Role.UNET, inputs=tuple(tensors[0]), outputs=tuple(tensors[1]))


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 24, 16), (3, 13, 9)], ids=["3:2", "odd"])
def test_unet_and_conditioner(pair: UNetPair, batch: int, height: int, width: int, tmp_path: Path) -> None:
    inputs = unet_inputs(pair.architecture, batch, height, width)
    step = _step(pair, inputs)
    del inputs["latents"]
    outputs = run_onnx(_conditioner(pair), pair.conditioner.state_dict(), inputs, tmp_path)
    for ours, expected in zip(outputs, pair.conditioner(**inputs), strict=True):
        assert relative_error(ours, expected) < MODEL_RELATIVE
    (prediction,) = run_onnx(_unet(pair), pair.unet.state_dict(), step, tmp_path)
    latents, vectors, *key_values = step.values()
    assert relative_error(prediction, pair.unet(latents, vectors, key_values)) < MODEL_RELATIVE


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "eos_token_id": 2}], ids=["clip-l", "bigg"])
def test_text_encoder_with_projection(changes: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(6)
    pair = clip_pair(pooled=True, **changes)
    model = export_master("text_encoder_2", lambda: ClipTextEncoder(pair.architecture), pair.architecture.component())
    ids = torch.randint(0, 98, (3, 77))
    ids[0, 9:], ids[1, 40:], ids[2, 76] = 98, 98, 98
    hidden, pooled = run_onnx(model, pair.ours.state_dict(), {"input_ids": ids}, tmp_path)
    assert relative_error(hidden, pair.ours(ids)[0]) < MODEL_RELATIVE
    assert relative_error(pooled, pair.ours(ids)[1]) < MODEL_RELATIVE


def test_text_encoder_without_projection(tmp_path: Path) -> None:
    pair = clip_pair(pooled=False)
    model = export_master("text_encoder", lambda: ClipTextEncoder(pair.architecture), pair.architecture.component())
    ids = torch.randint(0, 98, (2, 77))
    (hidden,) = run_onnx(model, pair.ours.state_dict(), {"input_ids": ids}, tmp_path)
    assert relative_error(hidden, pair.ours(ids)) < MODEL_RELATIVE


def test_vae_decoder(tmp_path: Path) -> None:
    torch.manual_seed(7)
    pair = vae_pair()
    model = export_master("vae_decoder", lambda: VaeDecoder(pair.architecture), pair.architecture.decoder())
    latents = torch.randn(2, 4, 9, 6)
    (image,) = run_onnx(model, pair.ours.state_dict(), {"latents": latents}, tmp_path)
    assert relative_error(image, pair.ours(latents)) < MODEL_RELATIVE


@pytest.mark.parametrize("half_edges", [False, True])
def test_float16_computes_norms_and_timesteps_in_float32(half_edges: bool, tmp_path: Path) -> None:
    torch.manual_seed(8)
    pair = unet_pair("base")
    inputs = unet_inputs(pair.architecture, 2, 13, 9)
    step = _step(pair, inputs)
    spec = _half_edges(pair.architecture.unet()) if half_edges else pair.architecture.unet()
    unet = export_master("base/unet", lambda: UNet(pair.architecture), spec, dtype=torch.float16)
    for node in unet.graph:
        if node.op_type in ("InstanceNormalization", "LayerNormalization"):
            assert node.inputs[0].producer().op_type in ("Cast", "Reshape")
            assert node.inputs[1].dtype == ir.DataType.FLOAT
        elif node.op_type in ("MatMul", "Conv", "Attention"):
            assert {x.dtype for x in node.inputs if x is not None and x.is_initializer()} <= {ir.DataType.FLOAT16}
    edges = {name: x.half() if half_edges else x for name, x in step.items()}
    (prediction,) = run_onnx(unet, pair.unet.state_dict(), edges, tmp_path)
    assert prediction.dtype == (np.float16 if half_edges else np.float32)
    latents, vectors, *key_values = step.values()
    assert relative_error(prediction, pair.unet(latents, vectors, key_values)) < HALF_RELATIVE
    del inputs["latents"]
    vectors = run_onnx(_conditioner(pair, dtype=torch.float16), pair.conditioner.state_dict(), inputs, tmp_path)[0]
    assert relative_error(vectors, pair.conditioner(**inputs)[0]) < HALF_RELATIVE


def test_the_graph_s_edge_is_the_spec(pair: UNetPair) -> None:
    for model, spec in (
        (_conditioner(pair), pair.architecture.conditioner()),
        (_unet(pair), pair.architecture.unet()),
    ):
        for values, declared in ((model.graph.inputs, spec.inputs), (model.graph.outputs, spec.outputs)):
            actual = [(v.name, tuple(d if isinstance(d, int) else d.value for d in v.shape)) for v in values]
            assert actual == [(t.name, t.shape) for t in declared]
            assert {v.dtype for v in values} == {ir.DataType.FLOAT}
        assert model.opset_imports == {"": 23}


def test_the_graph_has_the_documented_forms() -> None:
    pair = unet_pair("base")
    graph = _unet(pair).graph
    assert {node.op_type for node in graph} <= STANDARD_OPERATORS
    linears = {name for name, m in pair.unet.named_modules() if isinstance(m, nn.Linear)}
    found = set()
    for node in graph:
        if node.op_type == "MatMul":
            transpose = node.inputs[1].producer()
            assert transpose.op_type == "Transpose"
            found.add(transpose.inputs[0].name.removesuffix(".weight"))
    assert found == linears
    attentions = [node for node in graph if node.op_type == "Attention"]
    assert len(attentions) == 2 * len(pair.architecture.attention_widths())
    heads = [node.attributes["q_num_heads"].as_int() for node in attentions]
    assert heads == [node.attributes["kv_num_heads"].as_int() for node in attentions]
    assert heads == [{64: 2, 128: 4}[width] for width in pair.architecture.attention_widths() for _ in range(2)]
    assert len([n for n in graph if n.op_type == "InstanceNormalization"]) == len(
        [m for m in pair.unet.modules() if isinstance(m, nn.GroupNorm)]
    )
    assert all(list(o.uses()) or o.is_graph_output() for node in graph for o in node.outputs), "dead nodes"
    names = [node.name for node in graph]
    assert len(set(names)) == len(names)
    assert "down_blocks.1.attentions.0.transformer_blocks.0.attn1/Attention" in names


def test_no_weights_before_attach_and_one_read_each_time_after(tmp_path: Path) -> None:
    pair = unet_pair("miniature")
    devices: set[str] = set()

    def factory() -> nn.Module:
        module = UNet(pair.architecture)
        devices.update(p.device.type for p in module.parameters())
        return module

    model = export_master("base/unet", factory, pair.architecture.unet())
    assert devices == {"meta"}
    parameters = {n: v for n, v in model.graph.initializers.items() if not n.startswith("constant.")}
    assert {n: tuple(v.shape) for n, v in parameters.items()} == {
        n: tuple(p.shape) for n, p in pair.unet.state_dict().items()
    }
    assert all(v.const_value is None for v in parameters.values())
    weights = StateDict(pair.unet.state_dict())
    attach(model, weights)
    assert weights.reads == []
    ir.save(model, tmp_path / "model.onnx", external_data="model.onnx.data")
    assert sorted(weights.reads) == sorted(parameters)


def test_a_weight_of_another_shape_is_refused() -> None:
    pair = unet_pair("miniature")
    weights = {**pair.unet.state_dict(), "conv_in.weight": torch.zeros(16, 5, 3, 3)}
    model = attach(_unet(pair), StateDict(weights))
    with pytest.raises(IncompatibleError, match=r"conv_in\.weight has shape \(16, 5, 3, 3\).*\(16, 4, 3, 3\)"):
        model.graph.initializers["conv_in.weight"].const_value.numpy()


class _Call(nn.Module):
    """A module whose forward is a function of `x`, beside one linear layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x.cumsum(0), "cumsum"),
        (lambda x: x + x.shape[0], "shape"),
        (lambda x: x[1:], "__getitem__"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(function: Callable[[Tensor], Tensor], named: str) -> None:
    spec = ComponentSpec(role=Role.UNET, inputs=ONE_INPUT, outputs=ONE_OUTPUT)
    with pytest.raises(IncompatibleError, match=named):
        export_master("probe", lambda: _Call(function), spec)


def test_a_parameter_that_the_forward_pass_ignores_is_refused() -> None:
    class Wasteful(_Call):
        def __init__(self) -> None:
            super().__init__(lambda x: x)
            self.forgotten = nn.Linear(2, 2)

    with pytest.raises(IncompatibleError, match=r"forgotten\.bias"):
        export_master("probe", Wasteful, ComponentSpec(role=Role.UNET, inputs=ONE_INPUT, outputs=ONE_OUTPUT))


FULL_SIZE = """
import json, resource, sys, time
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.architecture import UNetArchitecture
from pocketxl.export.graph.master import export_master
fields = json.loads(sys.argv[1])
a = UNetArchitecture(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
start = time.monotonic()
masters = (
    export_master("unet", lambda: UNet(a), a.unet()),
    export_master("conditioner", lambda: Conditioner(a), a.conditioner()),
)
seconds = time.monotonic() - start
parameters = {n: list(v.shape) for m in masters for n, v in m.graph.initializers.items() if v.const_value is None}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "parameters": parameters}))
"""


@pytest.mark.full
@pytest.mark.parametrize("kind", FULL_SIZE_UNETS)
def test_full_size_in_seconds_without_weights_in_memory(kind: str) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        theirs = UNet2DConditionModel(**FULL_SIZE_UNETS[kind])
    assert sum(p.numel() for p in theirs.parameters()) > 2e9
    ids = SizeIds.SIZE_CROP_SCORE if kind == "refiner" else SizeIds.SIZE_CROP_TARGET
    data = {**theirs.config, **FULL_SIZE_UNETS[kind], "_class_name": "UNet2DConditionModel"}
    architecture = unet_architecture(json_file(data), ids)
    command = [sys.executable, "-c", FULL_SIZE, json.dumps(dataclasses.asdict(architecture))]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert result["parameters"] == {name: list(p.shape) for name, p in theirs.state_dict().items()}
    assert result["seconds"] < 90
    assert result["peak"] < 1 << 30
