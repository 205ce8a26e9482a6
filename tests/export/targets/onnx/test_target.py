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
from pocketxl.engine.specs import ComponentSpec, Role
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.openings import ROWS
from pocketxl.export.quantize.formats import Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.onnx.target import OPSET, OnnxHalfTarget, rewrite

from ....fixtures.networks import clip_pair, unet_pair, vae_pair
from ....fixtures.onnx_run import StateDict
from ....tolerances import HALF_NETWORK_RELATIVE
from ..cpu.lowering import dequantized, l2_error, noise, session

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


def quantization(recipe: str, spec: ComponentSpec) -> Quantization:
    return Quantization(recipe=fitted(RECIPES[recipe], OnnxHalfTarget()), role=spec.role)


def lower(made: Made, out: Path, recipe: str = "fp16") -> dict[str, onnx.ModelProto]:
    module, factory, spec = made
    master = export_master("component", factory, spec, dtype=torch.float16)
    (out / "aside").mkdir()
    found = OnnxHalfTarget().lower(
        "component",
        spec,
        master,
        StateDict(module.state_dict()),
        quantization(recipe, spec),
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
    module, _, _ = made = component()
    models = lower(made, tmp_path)
    model = models["model.onnx"]
    for one in models.values():
        onnx.checker.check_model(one)  # knows the operators of the opset that is declared
        assert {o.domain: o.version for o in one.opset_import} == {"": OPSET, "com.microsoft": 1}
        nodes = list(every_node(one.graph))
        assert {node.op_type for node in nodes if node.domain} <= {"MultiHeadAttention"}
        # DirectML ignores a mask that is an attribute.
        assert not any(attribute.name == "unidirectional" for node in nodes for attribute in node.attribute)
    is_close_to_float32(made, tmp_path)
    weights = {name for name, parameter in module.named_parameters() if parameter.dim() > 1}
    wide = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) > 1}
    assert not wide & weights, "half of their size"


def is_close_to_float32(made: Made, folder: Path) -> None:
    """What `folder` has gives what the module gives in float32, but for halves."""
    spec = made[2]
    inputs = {
        tensor.name: np.arange(77)[None]
        if tensor.dtype == "int64"
        else noise(*(d if isinstance(d, int) else SIZES[d] for d in tensor.shape), seed=index)
        for index, tensor in enumerate(spec.inputs)
    }
    names = [tensor.name for tensor in spec.outputs]
    expected = export_and_run_float32(made, folder / "float32", inputs, names)
    actual = session(folder / "model.onnx").run(names, inputs)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == np.float32
        assert l2_error(one, other) < HALF_NETWORK_RELATIVE
        assert not np.array_equal(one, other) or spec.role is Role.CONDITIONER


@pytest.mark.parametrize("recipe", ["int8-weight", "int4-weight"])
@pytest.mark.parametrize("component", [unet, conditioner, vae, text_encoder])
def test_rounded_weights_stand_for_what_rounding_makes_of_them(
    component: Callable[[], Made], recipe: str, tmp_path: Path
) -> None:
    """The network in float32 with those weights is the same but for halves; in open graphs they are the same too."""
    torch.manual_seed(0)
    module, factory, spec = made = component()
    models = lower(made, tmp_path, recipe)
    known, kinds = quantization(recipe, spec), dict(kinds_of(module))
    stored: dict[str, torch.Tensor] = {}
    for name, kind in kinds.items():
        how = known.format(kind, name).weight
        if how is not None and how.scaled:
            halves = module.get_parameter(f"{name}.weight").half().float()  # as the master has them
            stored[name] = torch.from_numpy(dequantized(halves, how)).float()
    assert stored
    with torch.no_grad():
        for name, numbers in stored.items():
            module.get_parameter(f"{name}.weight").copy_(numbers)
    is_close_to_float32((module, factory, spec), tmp_path)
    for one in models.values():
        onnx.checker.check_model(one)
        assert {o.domain: o.version for o in one.opset_import} == {"": OPSET, "com.microsoft": 1}
        nodes = list(every_node(one.graph))
        assert {node.op_type for node in nodes if node.domain} <= {"MultiHeadAttention", "MatMulNBits"}
        products = sum(node.op_type == "MatMulNBits" for node in nodes)
        rounded = sum(node.op_type == "DequantizeLinear" for node in nodes)
        four = [name for name in stored if (how := known.format(kinds[name], name).weight) and how.bits == 4]
        assert products <= len(four)
        assert 0 < products + rounded <= len(stored), "the outermost level has some of them"
        if one is models["model.onnx"]:
            assert (products, rounded) == (len(four), len(stored) - len(four))


def kinds_of(module: nn.Module) -> Iterator[tuple[str, Kind]]:
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            yield name, Kind.LINEAR if isinstance(part, nn.Linear) else Kind.CONV


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
        rewrite("base/unet", model, spec, quantization("fp16", spec))
