"""TensorRT for RTX engines of every component are built without a GPU; what cannot be built says why, and where.

What an engine computes is not tested here: running one, even opening it, needs a GPU.
"""

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn

from pocketxl.engine.architecture import UNetArchitecture
from pocketxl.engine.errors import IncompatibleError, StorageError
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.target import Lowered
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.rtx.builder import build_engine
from pocketxl.export.targets.rtx.profiles import profile
from pocketxl.export.targets.rtx.target import ARCHITECTURES

from ....fixtures.networks import clip_pair, unet_pair, vae_pair

pytest.importorskip("tensorrt_rtx")


class ModuleWeights:
    """A torch module's own weights."""

    def __init__(self, module: nn.Module) -> None:
        self.tensors = module.state_dict()

    def tensor(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self.tensors[name]
        return tensor


def lower(name: str, module: nn.Module, factory: Any, spec: ComponentSpec, out: Path, target: str = "rtx-sm89") -> Path:
    model = export_master(name, factory, spec, dtype=torch.float16)
    made = lower_master(name, model, spec, module, out, target)
    assert made.stand_in == out / "aside" / "model.onnx"
    assert made.activation.terms
    assert sorted(p.name for p in out.iterdir()) == ["aside", "model.engine"]
    return out / "model.engine"


def lower_master(
    name: str, model: ir.Model, spec: ComponentSpec, module: nn.Module, out: Path, target: str = "rtx-sm89"
) -> Lowered:
    (out / "aside").mkdir()
    row = TARGETS[target]
    known = Quantization(recipe=RECIPES["fp16"], role=spec.role)
    return row.lower(name, spec, model, ModuleWeights(module), known, out, out / "aside")


def holds_half_weights(engine: Path, module: nn.Module) -> None:
    """The engine is larger than its 16-bit weights; far larger than those only by kernels, which are a few MB."""
    half = 2 * sum(p.numel() for p in module.parameters())
    assert half < engine.stat().st_size


# Building takes a fraction of a second for each block, so there are as few as a U-Net can have.
SMALLEST = UNetArchitecture(
    in_channels=4,
    out_channels=4,
    block_out_channels=(32, 64),
    transformer_layers=(0, 1),
    up_transformer_layers=(1, 0),
    mid_transformer_layers=1,
    layers_per_block=1,
    heads=(1, 1),
    cross_attention_dim=48,
    addition_time_embed_dim=16,
    projection_class_embeddings_input_dim=136,
)


def test_unet(tmp_path: Path) -> None:
    module = UNet(SMALLEST)
    engine = lower("base/unet", module, lambda: UNet(SMALLEST), SMALLEST.unet(), tmp_path)
    holds_half_weights(engine, module)


def test_conditioner(tmp_path: Path) -> None:
    pair = unet_pair("base")
    kind, spec = type(pair.conditioner), pair.architecture.conditioner()
    engine = lower("base/conditioner", pair.conditioner, lambda: kind(pair.architecture), spec, tmp_path)
    holds_half_weights(engine, pair.conditioner)


def test_vae_decoder(tmp_path: Path) -> None:
    pair = vae_pair()
    engine = lower(
        "vae_decoder", pair.ours, lambda: type(pair.ours)(pair.architecture), pair.architecture.decoder(), tmp_path
    )
    holds_half_weights(engine, pair.ours)


@pytest.mark.parametrize("target", [f"rtx-{name}" for name in ARCHITECTURES])
def test_text_encoder_for_every_architecture(tmp_path: Path, target: str) -> None:
    pair = clip_pair(pooled=True)
    spec = pair.architecture.component()
    lower("text_encoder_2", pair.ours, lambda: type(pair.ours)(pair.architecture), spec, tmp_path, target)


def test_profiles_follow_the_spec_s_symbols() -> None:
    assert profile("unet", "latents", ("batch", 4, "height", "width")) == [
        (1, 4, 8, 8),
        (2, 4, 128, 128),
        (8, 4, 256, 256),
    ]
    with pytest.raises(IncompatibleError, match=r"latents has the dimensions \['frames'\]"):
        profile("unet", "latents", ("frames", 4))


def broken_onnx(folder: Path, op: str) -> Path:
    """One node `op` called `blocks.3/odd`."""
    x = ir.Value(name="x", shape=ir.Shape(("batch", 4)), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node(op, [x], name="blocks.3/odd")
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 23}, name="main")
    ir.save(ir.Model(graph, ir_version=11), folder / "model.onnx")
    return folder / "model.onnx"


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    onnx = broken_onnx(tmp_path, "NoSuchOperator")
    with pytest.raises(IncompatibleError, match=r"base/unet: .*node 'blocks\.3/odd' \(NoSuchOperator\)"):
        build_engine("base/unet", onnx, {"x": ("batch", 4)}, "sm89", tmp_path / "model.engine")


def test_a_file_that_is_no_onnx_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(IncompatibleError, match="cannot translate the ONNX file"):
        build_engine("base/unet", tmp_path / "model.onnx", {}, "sm89", tmp_path / "model.engine")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "model.engine").symlink_to("/dev/full")
    pair = vae_pair()
    spec = pair.architecture.decoder()
    model = export_master("vae", lambda: type(pair.ours)(pair.architecture), spec)
    with pytest.raises(StorageError, match="No space left"):
        lower_master("vae", model, spec, pair.ours, tmp_path)
