"""What is told of a value's sides is what it has when the network runs; of skips and what is made larger it is told."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from pocketxl.engine.models.unet import UNet
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.ranks import ranks_of
from pocketxl.export.graph.segments import _Graph
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.rtx.target import rewrite, write_onnx

from ...fixtures.networks import unet_pair
from ...fixtures.onnx_run import StateDict
from ..targets.cpu.lowering import noise


def quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


@pytest.mark.parametrize(("target", "recipe"), [("rtx", "fp16"), ("cpu", "int4-weight")])
def test_of_a_unet(target: str, recipe: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair, chosen = unet_pair("miniature"), TARGETS[target]
    spec, weights = pair.architecture.unet(), StateDict(pair.unet.state_dict())
    known = Quantization(recipe=fitted(RECIPES[recipe], chosen), role=spec.role)
    dtype = getattr(torch, chosen.dtype)
    master = export_master("base/unet", lambda: UNet(pair.architecture), spec, dtype=dtype)
    if target == "rtx":
        rewrite(master)
        write_onnx(master, weights, known, tmp_path)
    else:
        chosen.lower("base/unet", spec, master, weights, known, tmp_path, tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    told = ranks_of(model.graph)
    made = [name for node in model.graph.node for name in node.output if name in told]
    edge = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in edge)
    (tmp_path / "all.onnx").write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(str(tmp_path / "all.onnx"), quiet(), providers=["CPUExecutionProvider"])
    sizes = {"batch": 1, "tokens": 77, "height": 8, "width": 8}
    shapes = {t.name: [sizes[d] if isinstance(d, str) else d for d in t.shape] for t in spec.inputs}
    values = session.run(made, {name: noise(*shape) for name, shape in shapes.items()})
    assert {name: told[name] for name in made} == {name: v.ndim for name, v in zip(made, values, strict=True)}
    graph = _Graph(onnx.load(tmp_path / "model.onnx", load_external_data=False))
    pictures = [n.output[0] for n in graph.nodes if n.op_type == "Resize"]
    assert len(pictures) == 2
    skips = [node.input[0] for node in graph.nodes if node.op_type == "Shape" and node.attribute]
    assert all(told.get(name) == 4 for name in (*pictures, *skips))
