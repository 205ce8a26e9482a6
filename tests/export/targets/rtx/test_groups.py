"""One engine folder for GPU generations that do not share a program: a file for each group, and which is for which."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from pocketxl.engine.compiled.read import read_compiled
from pocketxl.engine.folder.manifest import ActivationModel
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.runners.ort_session import session_options
from pocketxl.engine.specs import Arrays, Role
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.formats import W4_HALVES, W8, W8A8_SIGNED, Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.parity import compare
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted, recipes_for
from pocketxl.export.targets.rtx import target as rtx
from pocketxl.export.targets.rtx.builder import Order
from pocketxl.export.targets.rtx.groups import ARCHITECTURES, TOGETHER, TURING, Group, most

from ....fixtures.onnx_run import StateDict
from ....fixtures.smallest import SMALLEST
from .calibrated import SPEC, chosen, sample
from .lowering import build, lower_master

ALL = TARGETS["rtx-all"]


def test_by_default_there_is_one_file_and_rtx_all_has_another_for_turing() -> None:
    assert isinstance(ALL, rtx.RtxTarget)
    assert {name for name, t in TARGETS.items() if isinstance(t, rtx.RtxTarget) and t.others} == {"rtx-all"}
    assert {*ALL.architectures, *(a for group in ALL.others for a in group.architectures)} == set(ARCHITECTURES)
    assert {*recipes_for(TARGETS["rtx"])} - {*recipes_for(ALL)} == {"fp8"}, "8-bit floats have no like on Turing"
    recipe = RECIPES["int8"]
    assert TARGETS["rtx"].files(recipe) == (recipe,)
    assert len(ALL.files(recipe)) == 2, "for the space that a build takes"


def test_what_a_group_does_instead_has_more_bits_and_its_own_target_can_do_it() -> None:
    alone = TARGETS["rtx-sm75"].formats
    for kind, formats in ALL.formats.items():
        for format in formats:
            found = TURING.instead.get(kind, {}).get(format, format)
            assert found in alone[kind], (kind, format)
            assert format.weight is not None
            assert found.weight is not None
            assert found.weight.bits >= format.weight.bits
            assert found.activation in (None, format.activation)


def test_a_layer_s_format_is_replaced_wherever_it_comes_from() -> None:
    recipe = fitted(RECIPES["int4-weight"], ALL)
    numbers = Quantization(recipe=recipe, role=Role.UNET, assigned={"a": W4_HALVES, "b": W8}, instead=TURING.instead)
    assert [numbers.format(Kind.LINEAR, name) for name in ("a", "a.1", "b", "c")] == [W8] * 4
    plain = Quantization(recipe=recipe, role=Role.UNET, assigned={"a": W4_HALVES}, instead={})
    assert plain.format(Kind.LINEAR, "a") == W4_HALVES


def test_memory_is_enough_for_each_of_the_files() -> None:
    one, other = ActivationModel(terms={"1": 5, "batch": 1}), ActivationModel(terms={"1": 3, "batch*pixels": 2})
    both = most([one, other])
    for pixels in (1, 64, 1 << 20):
        for batch in (1, 2):
            needs = [model.bytes_at(pixels, batch=batch) for model in (one, other)]
            assert both.bytes_at(pixels, batch=batch) >= max(needs)
    assert most([one]) == one


def test_a_file_is_named_by_what_it_is_for() -> None:
    assert Group(architectures=("sm89", "sm120")).file("model.engine") == "model.sm89-sm120.engine"


def test_the_smallest_u_net_for_all(tmp_path: Path) -> None:
    """4 bits, which Turing lacks: 8 there, and the others' file is as it would be without it."""
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    module = UNet(SMALLEST)
    made = build("base/unet", module, lambda: UNet(SMALLEST), SPEC, tmp_path, "rtx-all", "int4-weight")
    assert made.lowered.architectures == {"model.engine": TOGETHER, "model.sm75.engine": ("sm75",)}
    assert made.lowered.ranges == {"batch": (1, 2), "height": (8, 192), "width": (8, 192), "tokens": (77, 308)}
    turing = read_compiled(tmp_path / "model.sm75.engine")
    assert turing is not None
    assert (made.compiled.architectures, turing.architectures) == (TOGETHER, ("sm75",))
    assert made.compiled.constants["int4"] > 0
    assert turing.constants["int4"] == 0
    assert turing.constants["int8"] > 1.5 * made.compiled.constants["int4"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aside", "model.engine", "model.sm75.engine"]
    assert not (tmp_path / "aside" / "others").exists(), "its weights are not kept beside the stand-in's"


@pytest.mark.parametrize("recipe", ["int8", "int4-weight"])
def test_a_group_is_no_further_from_the_reference_than_the_form_that_is_measured(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[tuple[str, ...], ir.Model] = {}

    def compiled(order: Order, tell: object) -> None:
        model = ir.load(order.onnx.with_name("model.onnx"))
        for value in model.graph.initializers.values():
            assert value.const_value is not None
            value.const_value = ir.tensor(
                value.const_value.numpy().copy(), dtype=value.const_value.dtype, name=value.name
            )
        kept[order.architectures] = model

    monkeypatch.setattr("pocketxl.export.targets.rtx.process.build_aside", compiled)
    monkeypatch.setattr("pocketxl.export.targets.rtx.memory.working_memory", lambda *_: ActivationModel(terms={}))
    torch.manual_seed(0)
    module = UNet(SMALLEST)
    reference = StreamedModule(lambda: UNet(SMALLEST), SPEC, StateDict(module.state_dict()))
    known = chosen(module, reference, recipe, "rtx-all")
    model = export_master("base/unet", lambda: UNet(SMALLEST), SPEC, dtype=torch.float16)
    lower_master("base/unet", model, SPEC, module, tmp_path, "rtx-all", recipe, known)

    def error(architectures: tuple[str, ...]) -> float:
        content = ir.to_proto(kept[architectures]).SerializeToString()
        session = onnxruntime.InferenceSession(content, session_options(onnxruntime, 1, patterns=True))

        def run(inputs: Arrays) -> dict[str, np.ndarray]:
            return {"prediction": session.run(None, inputs)[0]}

        return compare(reference, run, [sample(7), sample(8)]).relative_error

    assert W8A8_SIGNED in {known.format(kind, "x") for kind in Kind} or recipe != "int8"
    assert 1e-4 < error(("sm75",)) < error(TOGETHER)
