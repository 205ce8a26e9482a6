"""The onnx-fp16 target: what every provider of ONNX Runtime can take, and how close it stays in half precision.

ONNX Runtime runs it here on the processor, where it computes in float32 what it has no kernel for in half precision.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pocketxl.engine.folder.openings import files_of
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.openings import ROWS
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.onnx.target import OPSET, OnnxHalfTarget, rewrite

from ....fixtures.networks import clip_pair, unet_pair, vae_pair
from ....fixtures.onnx_run import StateDict
from ....tolerances import HALF_NETWORK_RELATIVE
from ..cpu.lowering import l2_error, noise, session

SIZES = {"batch": 1, "tokens": 7, "steps": 3, "height": 8, "width": 8}
Made = tuple[nn.Module, Callable[[], nn.Module], ComponentSpec]


def unet() -> Made:
    pair = unet_pair("base")
    return pair.unet, lambda: UNet(pair.architecture), pair.architecture.unet()


def conditioner() -> Made:
    pair = unet_pair("base")
    return pair.conditioner, lambda: type(pair.conditioner)(pair.architecture), pair.architecture.conditioner()


def vae() -> Made:
    pair = vae_pair()
    return pair.ours, lambda: type(pair.ours)(pair.architecture), pair.architecture.decoder()


def text_encoder() -> Made:
    pair = clip_pair(pooled=True)
    return pair.ours, lambda: type(pair.ours)(pair.architecture), pair.architecture.component()


def lower(made: Made, out: Path) -> dict[str, onnx.ModelProto]:
    module, factory, spec = made
    master = export_master("component", factory, spec, dtype=torch.float16)
    (out / "aside").mkdir()
    found = OnnxHalfTarget().lower(
        "component",
        spec,
        master,
        StateDict(module.state_dict()),
        Quantization(recipe=RECIPES["fp16"], role=spec.role),
        out,
        out / "aside",
    )
    assert found.activation.terms
    assert found.stand_in is None
    openings = files_of(found.openings)
    assert bool(openings) == (spec.role in ROWS)
    names = {"aside", "model.onnx", "model.onnx.data", *openings}
    assert {path.name for path in out.iterdir()} == names
    return {name: onnx.load(out / name) for name in sorted(names) if name.endswith(".onnx")}


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from every_node(attribute.g)


@pytest.mark.parametrize("component", [unet, conditioner, vae, text_encoder])
def test_close_to_float32_with_operators_that_all_providers_have(component: Callable[[], Made], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, _, spec = made = component()
    models = lower(made, tmp_path)
    model = models["model.onnx"]
    for one in models.values():
        onnx.checker.check_model(one)  # knows the operators of the opset that is declared
        assert {o.domain: o.version for o in one.opset_import} == {"": OPSET, "com.microsoft": 1}
        nodes = list(every_node(one.graph))
        assert {node.op_type for node in nodes if node.domain} <= {"MultiHeadAttention"}
        # DirectML ignores a mask that is an attribute.
        assert not any(attribute.name == "unidirectional" for node in nodes for attribute in node.attribute)
    inputs = {
        tensor.name: np.arange(77)[None]
        if tensor.dtype == "int64"
        else noise(*(d if isinstance(d, int) else SIZES[d] for d in tensor.shape), seed=index)
        for index, tensor in enumerate(spec.inputs)
    }
    names = [tensor.name for tensor in spec.outputs]
    expected = export_and_run_float32(made, tmp_path / "float32", inputs, names)
    actual = session(tmp_path / "model.onnx").run(names, inputs)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == np.float32
        assert 0 < l2_error(one, other) < HALF_NETWORK_RELATIVE
    weights = {name for name, parameter in module.named_parameters() if parameter.dim() > 1}
    wide = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) > 1}
    assert not wide & weights, "half of their size"


def export_and_run_float32(
    made: Made, folder: Path, inputs: dict[str, np.ndarray], names: list[str]
) -> list[np.ndarray]:
    """The outputs of the master in float32, which `tests/export/graph` holds to torch."""
    import onnx_ir as ir

    from pocketxl.export.graph.master import attach

    module, factory, spec = made
    folder.mkdir()
    ir.save(attach(export_master("component", factory, spec), StateDict(module.state_dict())), folder / "model.onnx")
    found: list[np.ndarray] = session(folder / "model.onnx").run(names, inputs)
    return found


def test_an_operator_that_came_later_is_refused() -> None:
    from onnx_ir import AttrFloat32

    from pocketxl.engine.errors import IncompatibleError

    _, factory, spec = unet()
    model = export_master("base/unet", factory, spec, dtype=torch.float16)
    attention = next(node for node in model.graph if node.op_type == "Attention")
    attention.attributes.add(AttrFloat32("softcap", 30.0))  # which MultiHeadAttention has not
    with pytest.raises(IncompatibleError, match=r"base/unet: .* is Attention, which opset 20 does not have"):
        rewrite("base/unet", model, spec)
