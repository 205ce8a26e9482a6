"""A small module as master, and the answers of its rewritten graph: what the tests of passes and targets share."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn

from pocketxl.engine.runners.ort_session import session_options
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.formats import FLOAT32, Format, Kind, Weight
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import Recipe, Rule
from pocketxl.export.quantize.rounded import Floats
from pocketxl.export.quantize.rounding import round_weight

from ....fixtures.onnx_run import StateDict

Arrays = Mapping[str, np.ndarray]


class Single(nn.Module):
    """One layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y


def image_spec(channels: int, out: int) -> ComponentSpec:
    """One image-like input `x`, one output `y`."""
    return ComponentSpec(
        role=Role.UNET,
        inputs=(TensorSpec(name="x", shape=("batch", channels, "height", "width")),),
        outputs=(TensorSpec(name="y", shape=("batch", out, "out_height", "out_width")),),
    )


def token_spec(width: int, out: int) -> ComponentSpec:
    """One sequence of tokens `x`, one output `y`."""
    return ComponentSpec(
        role=Role.UNET,
        inputs=(TensorSpec(name="x", shape=("batch", "tokens", width)),),
        outputs=(TensorSpec(name="y", shape=("batch", "tokens", out)),),
    )


def master_of(module: nn.Module, spec: ComponentSpec) -> ir.Model:
    """The module's master with its own weights attached."""
    import copy

    return attach(export_master("unet", lambda: copy.deepcopy(module).to("meta"), spec), StateDict(module.state_dict()))


def all_as(kind: Kind, format: Format, **found: Any) -> Quantization:
    """Every layer of one kind of a U-Net gets the format; `found` is what is known about layers."""
    recipe = Recipe(
        name="test",
        kept=FLOAT32,
        rules={Role.UNET: (Rule(kind=kind, pattern=r".*", format=format),)},
        max_relative_error={Role.UNET: 0.1},
        min_psnr_db=20.0,
    )
    return Quantization(recipe=recipe, role=Role.UNET, **found)


def dequantized(weight: torch.Tensor, how: Weight | None, inputs: Floats | None = None) -> np.ndarray:
    """What a rounded weight stands for, in its own shape, float64: `rounding.py` rounds, this only multiplies."""
    assert how is not None
    matrix = weight.detach().flatten(1).numpy()
    found = round_weight(matrix, how, inputs=inputs)
    length, middle = how.group or matrix.shape[1], 8 if found.data.dtype == np.uint8 else 0
    zero = np.full_like(found.scale, middle) if found.zero is None else found.zero
    scales, zeros = (
        np.repeat(side.reshape(len(matrix), -1).astype(np.float64), length, axis=1)[:, : matrix.shape[1]]
        for side in (found.scale, zero)
    )
    values: np.ndarray = (found.data - zeros) * scales
    return values.reshape(weight.shape)


def run(model: ir.Model, folder: Path, inputs: Arrays, *, optimize: bool = True, **settings: Any) -> np.ndarray:
    """The first output of ONNX Runtime; unoptimized runs show the graph as it was written."""
    model.graph.opset_imports.setdefault("com.microsoft", 1)
    path = folder / "model.onnx"
    ir.save(model, path, external_data="model.onnx.data")
    output: np.ndarray = session(path, optimize=optimize, **settings).run(None, dict(inputs))[0]
    return output


def session(
    path: Path, *, optimize: bool = True, threads: int = 1, unsigned: bool | None = None, tiles: bool = False
) -> onnxruntime.InferenceSession:
    """ONNX Runtime set as the runner sets it; `unsigned`: whether it makes unsigned weights of ours, whatever it does.

    It can on every x86 processor, also where nothing overflows, and so it can make matrices of convolutions (`tiles`).
    """
    options = session_options(onnxruntime, threads, patterns=True, tiles=tiles)
    if unsigned is not None:
        options.add_session_config_entry("session.x64quantprecision", str(int(unsigned)))
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def operators(model: ir.Model) -> Counter[str]:
    """How many nodes of each operator there are."""
    return Counter(node.op_type for node in model.graph)


def l2_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """|actual - expected| / |expected|."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def answer(module: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> np.ndarray:
    """What torch computes."""
    with torch.inference_mode():
        return module(torch.from_numpy(x)).numpy()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
