"""Casts between float32 and half precision at a component's edge go away; the numbers stay."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from pocketxl.engine.models.unet import UNet
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.targets.rtx.edges import half_edges

from ....fixtures.compare import relative_error
from ....fixtures.networks import unet_pair
from ....fixtures.onnx_run import StateDict
from ....fixtures.smallest import SMALLEST
from ....tolerances import HALF_RELATIVE

HALF = ir.DataType.FLOAT16


def answers(model: ir.Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    types = {value.name: np.float16 if "16" in value.type else np.float32 for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    fed = {name: array.astype(types[name]) for name, array in inputs.items()}
    return dict(zip(names, session.run(names, fed), strict=True))


def test_the_numbers_stay() -> None:
    torch.manual_seed(0)
    module, spec = UNet(SMALLEST), SMALLEST.unet()
    model = export_master("base/unet", lambda: UNet(SMALLEST), spec, dtype=torch.float16)
    attach(model, StateDict(module.state_dict()))
    random, sizes = np.random.default_rng(0), {"batch": 2, "tokens": 7, "steps": 3, "height": 8, "width": 8}
    inputs = {
        t.name: random.standard_normal([sizes.get(str(d), d) for d in t.shape]).astype(np.float32)  # type: ignore[arg-type]
        for t in spec.inputs
    }
    before = answers(model, inputs)
    half_edges(model.graph)
    assert {value.dtype for value in (*model.graph.inputs, *model.graph.outputs)} == {HALF}
    after = answers(model, inputs)
    assert before.keys() == after.keys()
    for name, array in after.items():
        assert array.dtype == np.float16
        assert relative_error(array, before[name]) < HALF_RELATIVE, "ONNX Runtime's processor drops other casts"


def test_what_is_computed_in_float32_stays_so() -> None:
    pair = unet_pair("base")
    kind = type(pair.conditioner)
    model = export_master(
        "base/conditioner", lambda: kind(pair.architecture), pair.architecture.conditioner(), dtype=torch.float16
    )
    half_edges(model.graph)
    types = {value.name: value.dtype for value in model.graph.inputs}
    assert types["prompt_embeds"] == HALF
    assert types["timesteps"] == types["time_ids"] == ir.DataType.FLOAT, "timesteps up to 1000 become sines"
    assert {value.dtype for value in model.graph.outputs} == {HALF}
