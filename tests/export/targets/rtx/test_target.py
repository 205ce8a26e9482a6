"""TensorRT for RTX engines of every component are built without a GPU; what cannot be built says why, and where.

What an engine computes is not tested here: running one, even opening it, needs a GPU.
"""

from pathlib import Path

import onnx_ir as ir
import pytest
from torch import nn

from pocketxl.engine.errors import IncompatibleError, StorageError
from pocketxl.engine.models.unet import UNet
from pocketxl.export.graph.master import export_master
from pocketxl.export.targets.rtx.builder import Order, build_engine
from pocketxl.export.targets.rtx.target import ARCHITECTURES

from ....fixtures.networks import clip_pair, unet_pair, vae_pair
from ....fixtures.smallest import SMALLEST
from .lowering import Built, build, lower_master

pytest.importorskip("tensorrt_rtx")


def holds_half_weights(built: Built, module: nn.Module) -> None:
    """The engine is larger than its 16-bit weights; far larger than those only by kernels, which are a few MB."""
    half = 2 * sum(p.numel() for p in module.parameters())
    assert half < built.engine.stat().st_size
    assert built.lowered.stand_in == built.engine.parent / "aside" / "model.onnx"
    assert built.lowered.activation.terms
    assert sorted(p.name for p in built.engine.parent.iterdir()) == ["aside", "model.engine"]


def test_unet(unet_for_all: Built) -> None:
    holds_half_weights(unet_for_all, UNet(SMALLEST))


def test_conditioner(tmp_path: Path) -> None:
    pair = unet_pair("base")
    kind, spec = type(pair.conditioner), pair.architecture.conditioner()
    made = build("base/conditioner", pair.conditioner, lambda: kind(pair.architecture), spec, tmp_path)
    holds_half_weights(made, pair.conditioner)


def test_vae_decoder(tmp_path: Path) -> None:
    pair = vae_pair()
    made = build(
        "vae_decoder", pair.ours, lambda: type(pair.ours)(pair.architecture), pair.architecture.decoder(), tmp_path
    )
    holds_half_weights(made, pair.ours)


@pytest.mark.parametrize("target", [f"rtx-{name}" for name in ARCHITECTURES])
def test_text_encoder_for_every_architecture(tmp_path: Path, target: str) -> None:
    pair = clip_pair(pooled=True)
    spec = pair.architecture.component()
    made = build("text_encoder_2", pair.ours, lambda: type(pair.ours)(pair.architecture), spec, tmp_path, target)
    assert made.compiled.architectures == (target.removeprefix("rtx-"),)
    assert made.compiled.attentions == made.operators("Attention") == 3


def broken_onnx(folder: Path, op: str) -> Path:
    """One node `op` called `blocks.3/odd`."""
    x = ir.Value(name="x", shape=ir.Shape(("batch", 4)), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node(op, [x], name="blocks.3/odd")
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 23}, name="main")
    ir.save(ir.Model(graph, ir_version=11), folder / "model.onnx")
    return folder / "model.onnx"


def order(onnx: Path) -> Order:
    """To build the file for one architecture."""
    return Order(
        component="base/unet",
        onnx=onnx,
        profiles={"x": ((1, 4), (2, 4), (2, 4))},
        architectures=("sm89",),
        engine=onnx.parent / "model.engine",
    )


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    onnx = broken_onnx(tmp_path, "NoSuchOperator")
    with pytest.raises(IncompatibleError, match=r"base/unet: .*node 'blocks\.3/odd' \(NoSuchOperator\)"):
        build_engine(order(onnx))


def test_a_file_that_is_no_onnx_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(IncompatibleError, match="cannot translate the ONNX file"):
        build_engine(order(tmp_path / "model.onnx"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "model.engine").symlink_to("/dev/full")
    pair = vae_pair()
    spec = pair.architecture.decoder()
    model = export_master("vae", lambda: type(pair.ours)(pair.architecture), spec)
    with pytest.raises(StorageError, match="No space left"):
        lower_master("vae", model, spec, pair.ours, tmp_path)
