"""Open graphs: the plain one's weights, the plain one's answers at rank 0, and diffusers' with peft's pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from pocketxl.engine.adapters.additions import additions
from pocketxl.engine.adapters.factors import Factors
from pocketxl.engine.adapters.pairs import Lora
from pocketxl.engine.folder.openings import Openings, pair_inputs
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.graph import openings as table
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.pair_factors import pair_factors
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.smoothing import Smoothed, Smoothing
from pocketxl.export.targets.cpu.target import CpuTarget
from pocketxl.export.targets.onnx import openings as opened_by

from ....fixtures.loras import CONV, LINEAR, TIME, adapted
from ....fixtures.networks import UNetPair, unet_inputs, unet_pair
from ....fixtures.onnx_run import StateDict
from ....fixtures.smoothing import random_smoothing
from ....tolerances import OPEN_RELATIVE
from .lowering import session

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A U-Net and its conditioner, smoothed by random factors and lowered."""

    pair: UNetPair
    smoothing: Smoothing
    folders: Mapping[str, Path]
    openings: Mapping[str, Openings]
    factors: Mapping[str, Mapping[str, Factors]]

    def run(self, component: str, feeds: Arrays, lora: Lora | None, *, graph: int = -1, scaled: bool = True) -> Arrays:
        """One of the component's open graphs."""
        openings, chosen = self.openings[component], self.openings[component].graphs[graph]
        factors = self.factors[component] if scaled else {}
        given = {} if lora is None else additions([(lora, 1.0)], component, openings, factors)
        added = {name: array for layer in given.values() for name, array in layer.items()}
        for layer, shape in openings.shapes(chosen.groups).items():
            for tensor in pair_inputs(layer, shape):
                nothing = tuple(0 if isinstance(side, str) else side for side in tensor.shape)
                added.setdefault(tensor.name, np.zeros(nothing, np.float32))
        opened = session(self.folders[component] / chosen.file)
        for value in opened.get_inputs():  # of other adapters
            if value.name not in feeds:
                nothing = tuple(side if isinstance(side, int) else 0 for side in value.shape)
                added.setdefault(value.name, np.zeros(nothing, np.float32))
        names = [value.name for value in opened.get_outputs()]
        return dict(zip(names, opened.run(names, {**feeds, **added}), strict=True))


def make(root: Path) -> Made:
    torch.manual_seed(0)
    pair = unet_pair("base")
    state = pair.theirs.state_dict()
    smoothing = random_smoothing(state)
    folders, openings, factors = {}, {}, {}
    for part, module in (("conditioner", Conditioner), ("unet", UNet)):
        spec: ComponentSpec = getattr(pair.architecture, part)()
        name = f"base/{part}"
        folders[name] = root / part
        folders[name].mkdir()
        master = export_master(name, partial(module, pair.architecture), spec)
        numbers = Quantization(recipe=RECIPES["fp32"], role=spec.role)
        weights = Smoothed(StateDict(state), smoothing)
        made = CpuTarget().lower(name, spec, master, weights, numbers, folders[name], root)
        assert made.openings is not None
        openings[name] = made.openings
        factors[name] = pair_factors(made.openings.shapes(tuple(made.openings.layers)), smoothing, state)
    return Made(pair=pair, smoothing=smoothing, folders=folders, openings=openings, factors=factors)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("open"))


def by_component(lora: Lora, made: Made) -> Lora:
    """peft's pairs, those of the hoisted layers with the conditioner."""
    hoisted = made.openings["base/conditioner"].shapes(("attention", "others"))
    pairs = lora.pairs["base/unet"]
    return replace(
        lora,
        pairs={
            "base/conditioner": {layer: pair for layer, pair in pairs.items() if layer in hoisted},
            "base/unet": {layer: pair for layer, pair in pairs.items() if layer not in hoisted},
        },
    )


def ours(made: Made, inputs: Mapping[str, torch.Tensor], lora: Lora | None, *, scaled: bool = True) -> np.ndarray:
    """Conditioner and U-Net one after another, at the first of three timesteps."""
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    prompt = {name: array for name, array in arrays.items() if name != "latents"}
    given = dict(made.run("base/conditioner", prompt, lora, scaled=scaled))
    vectors = given.pop("time_vectors")[0]
    feeds = {"latents": arrays["latents"], "time_vectors": vectors, **given}
    return made.run("base/unet", feeds, lora, scaled=scaled)["prediction"]


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def test_pairs_are_scaled_as_the_layers_beside_them(made: Made) -> None:
    """Every layer has one, and every channel that can be smoothed was, by up to 8: nobody may forget a factor."""
    torch.manual_seed(1)
    inputs = unet_inputs(made.pair.architecture, 2, 16, 16)
    added = {"text_embeds": inputs["pooled_prompt_embeds"], "time_ids": inputs["time_ids"]}

    def theirs() -> np.ndarray:
        latents, time, prompt = (inputs[name] for name in ("latents", "timesteps", "prompt_embeds"))
        with torch.no_grad():
            return np.asarray(made.pair.theirs(latents, time[0], prompt, added_cond_kwargs=added).sample)

    plain = theirs()
    assert relative(ours(made, inputs, None), plain) < OPEN_RELATIVE
    with adapted({"base/unet": (made.pair.theirs, (*LINEAR, *CONV, *TIME))}, "lora") as lora:
        changed = theirs()
    placed = by_component(lora, made)
    assert relative(plain, changed) > 0.1
    assert relative(ours(made, inputs, placed), changed) < OPEN_RELATIVE
    assert relative(ours(made, inputs, placed, scaled=False), changed) > 0.1


@pytest.mark.parametrize("graph", [0, 1, 2])
def test_a_graph_without_pairs_answers_as_the_plain_one_to_the_bit(made: Made, graph: int) -> None:
    torch.manual_seed(2)
    architecture = made.pair.architecture
    sizes = {"batch": 1, "tokens": 7, "height": 16, "width": 12}
    random = np.random.default_rng(0)
    feeds = {
        tensor.name: random.standard_normal([sizes.get(str(side), side) for side in tensor.shape], np.float32)  # type: ignore[arg-type]
        for tensor in architecture.unet().inputs
    }
    (plain,) = session(made.folders["base/unet"] / "model.onnx").run(None, feeds)
    assert np.array_equal(made.run("base/unet", feeds, None, graph=graph)["prediction"], plain)


@pytest.mark.parametrize("recipe", ["fp32", "int8-weight", "int4-weight"])
def test_the_plain_graph_is_what_it_is_without_open_ones(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no weight is stored, or read, a second time."""
    torch.manual_seed(0)
    pair = unet_pair("miniature")
    spec, found = pair.architecture.unet(), {}
    for name, rows in (("with", table.ROWS), ("without", {})):
        monkeypatch.setattr(opened_by, "ROWS", rows)
        monkeypatch.setattr(opened_by, "CACHED", table.CACHED if rows else {})
        (tmp_path / name).mkdir()
        weights = StateDict(pair.unet.state_dict())
        master = export_master("base/unet", lambda: UNet(pair.architecture), spec)
        numbers = Quantization(recipe=RECIPES[recipe], role=spec.role)
        CpuTarget().lower("base/unet", spec, master, weights, numbers, tmp_path / name, tmp_path)
        found[name] = {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}, weights.reads
    (opened, reads), (plain, plain_reads) = found["with"], found["without"]
    assert {name: opened[name] for name in plain} == plain
    cached = {row.file for pair in table.CACHED[spec.role] for row in (pair.whole, pair.shallow)}
    assert set(opened) - set(plain) == {row.file for row in table.ROWS[spec.role]} | cached
    assert reads == plain_reads


def test_a_layer_that_reads_an_opened_one_reads_what_was_added_to_it(made: Made) -> None:
    """A downsampler's convolution is read by the next ResNet's shortcut, directly."""
    path = made.folders["base/unet"] / "open.onnx"
    graph = ir.load(path).graph
    shortcut = next(node for node in graph.all_nodes() if node.name == "lora/down_blocks.1.resnets.0.conv_shortcut/0")
    assert shortcut.inputs[0] is not None
    assert shortcut.inputs[0].name == "lora/down_blocks.0.downsamplers.0.conv/sum"
