"""The outermost level of a U-Net's master, cut out: on its own feature it says what the whole network says."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketxl.engine.deep_features import FEATURE
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.specs import TensorSpec
from pocketxl.engine.t2i_adapter import FEATURES
from pocketxl.export.graph.layers import find_layers
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.openings import CACHED
from pocketxl.export.graph.shallow import cut, feature_of
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.cpu.target import CpuTarget

from ...fixtures.networks import unet_pair
from ...fixtures.onnx_run import StateDict
from ..targets.cpu.lowering import session

SIZES = {"batch": 2, "tokens": 7, "height": 10, "width": 13}
"""Odd at every level."""


@pytest.mark.parametrize(("kind", "recipe"), [("miniature", "int8-weight"), ("lopsided", "fp32")])
def test_on_its_own_feature_it_gives_the_whole_prediction_to_the_bit(kind: str, recipe: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = unet_pair(kind)
    spec = pair.architecture.unet()
    master = export_master("base/unet", partial(UNet, pair.architecture), spec)
    numbers = Quantization(recipe=RECIPES[recipe], role=spec.role)
    made = CpuTarget().lower("base/unet", spec, master, StateDict(pair.unet.state_dict()), numbers, tmp_path, tmp_path)
    random = np.random.default_rng(0)
    shapes = {tensor.name: [SIZES.get(str(side), side) for side in tensor.shape] for tensor in spec.inputs}
    feeds = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}  # type: ignore[arg-type]
    (plain,) = session(tmp_path / "model.onnx").run(None, feeds)
    assert made.openings is not None
    assert len(made.openings.cached) == len(CACHED[spec.role])
    for graphs in made.openings.cached:
        found: dict[str, np.ndarray] = {}
        for file, names in ((graphs.whole.file, ["prediction", FEATURE]), (graphs.shallow.file, ["prediction"])):
            opened = session(tmp_path / file)
            given = {**feeds, FEATURE: found[FEATURE]} if FEATURE in found else feeds
            nothing = {
                value.name: np.zeros([side if isinstance(side, int) else 0 for side in value.shape], np.float32)
                for value in opened.get_inputs()
                if value.name not in given
            }
            taken = {value.name for value in opened.get_inputs()}
            values = opened.run(names, {n: a for n, a in {**given, **nothing}.items() if n in taken})
            found.update(zip(names, values, strict=True))
            assert np.array_equal(found["prediction"], plain), file
            if file == graphs.shallow.file:
                pairs = {f"lora.{layer}.{side}" for layer in graphs.shallow.layers for side in ("down", "up")}
                added = {tensor.name for tensor in graphs.shallow.inputs}
                assert taken == {*graphs.shallow.own, FEATURE} | pairs | added
                assert all(name.startswith(("residuals.", "image_key_values.", f"{FEATURES}.")) for name in added)


@pytest.mark.parametrize(("kind", "levels"), [("base", 3), ("refiner", 4), ("pruned", 3)])
def test_what_is_left_are_the_first_level_down_and_the_last_one_up(kind: str, levels: int) -> None:
    pair = unet_pair(kind)
    spec = pair.architecture.unet()
    master = export_master("base/unet", partial(UNet, pair.architecture), spec)
    before = {layer.name for layer in find_layers(master.graph)}
    feature = feature_of(master.graph)
    assert feature == TensorSpec(
        name="deep_feature", shape=("batch", pair.architecture.block_out_channels[1], "height", "width")
    )
    edge = cut(master, spec, feature)
    left = ("conv_in", "conv_out", "down_blocks.0.resnets", "down_blocks.0.attentions", f"up_blocks.{levels - 1}.")
    assert {layer.name for layer in find_layers(master.graph)} == {name for name in before if name.startswith(left)}
    assert [tensor.name for tensor in edge.inputs] == ["latents", "time_vectors", "deep_feature"]
    assert [value.name for value in master.graph.inputs] == [tensor.name for tensor in edge.inputs]
    assert edge.outputs == spec.outputs


def test_a_network_of_one_level_has_nothing_below_it() -> None:
    from dataclasses import replace

    architecture = replace(
        unet_pair("lcm").architecture,
        block_out_channels=(16,), heads=(1,), transformer_layers=(1,), up_transformer_layers=(1,),
    )  # fmt: skip
    assert feature_of(export_master("base/unet", partial(UNet, architecture), architecture.unet()).graph) is None
