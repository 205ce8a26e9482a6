"""Which of a wide VAE's convolutions are in 8 bits on cpu, which of them answer in floats, and how close they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.specs import Role
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.stand_ins import is_stand_in
from pocketxl.export.quantize.formats import FLOAT32, W8A8_STATIC, Format, Kind
from pocketxl.export.quantize.quantization import Quantization, StaticRange
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.cpu.conv_int8 import conv_int8
from pocketxl.export.targets.cpu.conv_patches import with_outer

SDXL = VaeArchitecture()
NARROW = replace(SDXL, block_out_channels=(64, 256, 512, 512))
INT8 = RECIPES["int8"]


def convolutions() -> dict[str, torch.nn.Conv2d]:
    with torch.device("meta"):
        decoder = VaeDecoder(SDXL)
    return {name: m for name, m in decoder.named_modules() if isinstance(m, torch.nn.Conv2d)}


def formats(architecture: VaeArchitecture) -> dict[str, Format]:
    recipe = with_outer(INT8, architecture)
    return {name: recipe.format(Role.VAE_DECODER, Kind.CONV, name) for name in convolutions()}


def test_all_but_the_first_the_last_and_shortcuts_are_in_8_bits() -> None:
    floats = {name for name, format in formats(SDXL).items() if format == FLOAT32}
    ends = {"post_quant_conv", "decoder.conv_in", "decoder.conv_out"}
    assert floats == ends | {f"decoder.up_blocks.{n}.resnets.0.conv_shortcut" for n in (2, 3)}


@pytest.mark.parametrize("recipe", ["fp32", "int8-weight", "fp8"])
def test_other_recipes_and_narrow_vaes_stay_as_they_are(recipe: str) -> None:
    assert with_outer(RECIPES[recipe], SDXL) is RECIPES[recipe]
    assert with_outer(INT8, NARROW) is INT8


def test_what_is_kept_stays_in_floats() -> None:
    name = "decoder.up_blocks.3.resnets.1.conv1"
    recipe = with_outer(INT8.keeping(Role.VAE_DECODER, [(Kind.CONV, name)]), SDXL)
    assert recipe.format(Role.VAE_DECODER, Kind.CONV, name) == FLOAT32


def test_answers_are_bytes_only_where_a_norm_follows_and_behind_no_shortcut() -> None:
    """The graph alone is looked at, in which nothing has numbers yet."""
    ranges = {
        name: StaticRange(
            input_scale=np.ones(m.in_channels, np.float32), input_zero=128,
            output_scale=np.ones(m.out_channels, np.float32), output_zero=128,
        )
        for name, m in convolutions().items()
    }  # fmt: skip
    spec = SDXL.decoder()
    model = export_master("vae_decoder", lambda: VaeDecoder(SDXL), spec)
    for value in model.graph.initializers.values():
        if value.const_value is None:
            value.const_value = _nothing(value)
    recipe = with_outer(INT8, SDXL)
    conv_int8(model.graph, Quantization(recipe=recipe, role=spec.role, ranges=ranges))
    in_bytes = {str(node.name) for node in model.graph if node.op_type == "QLinearConv"}
    patches = {str(node.name): node.attributes.get_int("grow", 0) for node in model.graph if is_stand_in(node)}
    last = "decoder.up_blocks.3.resnets"
    assert in_bytes == {f"{last}.{n}.conv1" for n in (0, 1, 2)} | {f"{last}.{n}.conv2" for n in (1, 2)}
    assert {name for name, grow in patches.items() if grow == 2} == {
        f"decoder.up_blocks.{n}.upsamplers.0.conv" for n in (0, 1, 2)
    }
    eight = {name for name, format in formats(SDXL).items() if format == W8A8_STATIC}
    assert in_bytes | set(patches) == eight


def _nothing(value: object) -> object:
    import onnx_ir as ir

    assert isinstance(value, ir.Value)
    assert value.shape is not None
    shape = ir.Shape([int(d) for d in value.shape])
    return ir.LazyTensor(lambda: None, dtype=ir.DataType.FLOAT, shape=shape, name=value.name)
