"""The activation model: exact on graphs that are counted by hand, and near what ONNX Runtime really allocates."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

from pocketxl.engine.architecture import UNetArchitecture, VaeArchitecture
from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.graph.activations import activation_model, live_bytes
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.cpu.target import rewrite
from pocketxl.export.targets.onnx.files import save

from ...tolerances import ACTIVATION_BYTES_FACTOR

SPEC = ComponentSpec(
    role=Role.UNET,
    inputs=(TensorSpec(name="x", shape=("batch", 4, "height", "width")),),
    outputs=(TensorSpec(name="y", shape=("batch", 4, "height", "width")),),
)
SIZES = {"batch": 2, "height": 8, "width": 8}
X = 4 * 2 * 4 * 8 * 8
"""Bytes of one `x` at SIZES."""


def graph(*nodes: tuple[str, list[str], str], attributes: dict[str, dict[str, object]] | None = None) -> ir.Model:
    """Nodes as (operator, inputs, output); `x` goes in, `y` comes out, `w` is a weight without data."""
    values = {
        "x": ir.Value(name="x", shape=ir.Shape(("batch", 4, "height", "width")), type=ir.TensorType(ir.DataType.FLOAT)),
        "w": ir.Value(name="w", shape=ir.Shape((4, 4, 1, 1)), type=ir.TensorType(ir.DataType.FLOAT)),
    }
    made = []
    for op, inputs, output in nodes:
        node = ir.node(op, [values[name] for name in inputs], (attributes or {}).get(output, {}), name=output)
        node.outputs[0].name, node.outputs[0].type = output, ir.TensorType(ir.DataType.FLOAT)
        values[output] = node.outputs[0]
        made.append(node)
    opsets = {"": 23}
    whole = ir.Graph(
        [values["x"]], [values["y"]], nodes=made, initializers=[values["w"]], opset_imports=opsets, name="g"
    )
    return ir.Model(whole, ir_version=11)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Relu", ["x"], "y")], 1),  # the input is the caller's and is not written over
        ([("Relu", ["x"], "a"), ("Relu", ["a"], "y")], 1),  # the second writes over the first
        ([("Softmax", ["x"], "a"), ("Softmax", ["a"], "y")], 2),  # not every operator can
        ([("Relu", ["x"], "a"), ("Relu", ["a"], "b"), ("Add", ["a", "b"], "y")], 2),  # `a` is still needed
        ([("Relu", ["x"], "a"), ("Identity", ["a"], "b"), ("Relu", ["a"], "c"), ("Add", ["b", "c"], "y")], 2),  # a view
        ([("Conv", ["x", "w"], "y")], 1),  # weights do not count
        ([("Neg", ["w"], "v"), ("Conv", ["x", "v"], "y")], 1),  # nor what is made of weights alone
        ([("Relu", ["x"], "a"), ("Softmax", ["x"], "b"), ("Softmax", ["a"], "c"), ("Add", ["b", "c"], "y")], 3),
    ],
)
def test_live_bytes_counted_by_hand(nodes: list[tuple[str, list[str], str]], expected: int) -> None:
    assert live_bytes("g", graph(*nodes), SIZES) == expected * X


def test_what_a_node_needs_while_it_runs_counts_at_that_node_alone() -> None:
    nodes = graph(("Softmax", ["x"], "a"), ("Softmax", ["a"], "b"), ("Relu", ["b"], "y"))
    assert live_bytes("g", nodes, SIZES, {"a": 1.5}) == 2.5 * X
    assert live_bytes("g", nodes, SIZES, {"b": 1.5}) == 3.5 * X
    assert live_bytes("g", nodes, SIZES, {"a": 0.5}) == 2 * X, "the peak is elsewhere"


def test_the_fit_finds_the_polynomial() -> None:
    model = activation_model("g", graph(("Softmax", ["x"], "a"), ("Softmax", ["a"], "y")), SPEC)
    # Two tensors of 4 channels in float32 at an eighth of the width and height.
    assert model.terms == pytest.approx({"batch*pixels": 2 * 4 * 4 / 64}, rel=1e-4)


def test_written_out_attention_grows_with_the_square_of_the_pixels() -> None:
    """Scores of every latent pixel with every other: 4 bytes each, and once more for the softmax."""
    nodes = [
        ("Flatten", ["x"], "rows"),
        ("Transpose", ["rows"], "columns"),
        ("MatMul", ["columns", "rows"], "scores"),
        ("Softmax", ["scores"], "weights"),
        ("MatMul", ["weights", "columns"], "y"),
    ]
    model = activation_model("g", graph(*nodes, attributes={"rows": {"axis": 2}}), SPEC)
    # Flatten at axis 2 gives [batch·4, pixels]: the scores have no batch of their own, so the fit sees only one row.
    pixels = 1024 * 1024
    assert model.bytes_at(pixels, batch=1) >= 2 * 4 * (pixels // 64) ** 2


def test_no_sample_is_above_the_model() -> None:
    model = activation_model("unet", unet_master(), ARCHITECTURE.unet())
    for side in (32, 96):
        for batch in (1, 2):
            peak = live_bytes("unet", unet_master(), {"batch": batch, "tokens": 77, "height": side, "width": side})
            assert peak <= model.bytes_at(64 * side * side, batch=batch) <= 1.02 * peak


def test_shapes_that_cannot_be_known_are_named() -> None:
    with pytest.raises(IncompatibleError, match=r"g: the shapes of \['y'\] cannot be inferred"):
        live_bytes("g", graph(("NoSuchOperator", ["x"], "y")), SIZES)


ARCHITECTURE = UNetArchitecture(
    in_channels=4,
    out_channels=4,
    block_out_channels=(128, 256),
    transformer_layers=(0, 1),
    up_transformer_layers=(1, 0),
    mid_transformer_layers=1,
    layers_per_block=1,
    heads=(2, 4),
    cross_attention_dim=64,
    addition_time_embed_dim=32,
    projection_class_embeddings_input_dim=288,
)
VAE = VaeArchitecture(block_out_channels=(32, 64, 64, 64), layers_per_block=1, norm_num_groups=8)

# Runs a component once, and prints by how much its peak rose over what it held before.
MEASURE = """
import json, sys
import numpy as np
from pocketxl.engine.runners.ort_session import import_onnxruntime, session_options
ort = import_onnxruntime()
options = session_options(ort, 2, patterns=True)
# Exact allocation: the arena's rounding is a matter of the runner, not of the graph.
options.enable_cpu_mem_arena = False
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {name: np.ones(shape, np.float32) for name, shape in json.loads(sys.argv[2]).items()}
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
session.run(None, feeds)
print(status("VmHWM") - before)
"""


@cache
def unet_master() -> ir.Model:
    return export_master("unet", lambda: UNet(ARCHITECTURE), ARCHITECTURE.unet())


class ModuleWeights:
    """A torch module's own weights."""

    def __init__(self, module: nn.Module) -> None:
        self.tensors = module.state_dict()

    def tensor(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self.tensors[name]
        return tensor


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's high-water mark of resident memory")
@pytest.mark.parametrize("component", ["unet", "vae_decoder"])
def test_onnxruntime_needs_what_is_predicted(tmp_path: Path, component: str) -> None:
    module: nn.Module
    if component == "unet":
        module, spec, side = UNet(ARCHITECTURE), ARCHITECTURE.unet(), 64
    else:
        module, spec, side = VaeDecoder(VAE), VAE.decoder(), 48
    master = export_master(component, lambda: module, spec)
    sizes = {"batch": 1, "tokens": 77, "height": side, "width": side}
    predicted = activation_model(component, master, spec).bytes_at(64 * side * side, batch=1)
    known = Quantization(recipe=RECIPES["fp32"], role=spec.role)
    attach(master, ModuleWeights(module))
    rewrite(master, known)
    save(master, tmp_path)
    shapes = {t.name: [sizes[d] if isinstance(d, str) else d for d in t.shape] for t in spec.inputs}
    # Blocks go back to the system at once, so that the high-water mark shows what is alive and not what the heap keeps.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "model.onnx"), json.dumps(shapes)]
    measured = int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert predicted / ACTIVATION_BYTES_FACTOR < measured < predicted * ACTIVATION_BYTES_FACTOR
