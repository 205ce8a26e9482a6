"""What each target says that it can do, and what a recipe that it cannot do is answered with."""

from dataclasses import replace

import pytest

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.errors import RequestError
from pocketxl.engine.specs import Role
from pocketxl.export.quantize.formats import (
    FLOAT16,
    FLOAT32,
    W8,
    W8A8_DYNAMIC,
    W8A8_GROUP,
    W8A8_SIGNED,
    W8A8_SIGNED_CHANNEL,
    W8A8_STATIC,
    W8A8_TOKEN,
    Kind,
)
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.target import Target
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import check, fitted, recipes_for
from pocketxl.export.targets.cpu.target import CpuTarget


@pytest.mark.parametrize(
    ("target", "recipes"),
    [
        ("cpu", ("fp32", "int8", "int8-weight", "int4-weight")),
        ("onnx-fp16", ("fp16", "int8-weight", "int4-weight")),
        ("openvino", ("fp32", "int8")),
        ("cuda", ("fp16", "int8", "int8-weight", "int4", "int4-weight")),
        ("rtx", ("fp16", "int8", "fp8", "int8-weight", "int4-weight")),
        ("rtx-sm86", ("fp16", "int8", "int8-weight", "int4-weight")),
        ("rtx-sm121", ("fp16", "int8", "fp8", "int8-weight", "int4-weight")),
        ("rtx-sm75", ("fp16", "int8", "int8-weight")),
    ],
)
def test_recipes_follow_from_the_formats(target: str, recipes: tuple[str, ...]) -> None:
    assert recipes_for(TARGETS[target]) == recipes


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_can_do_its_own_default(target: Target) -> None:
    check(target, RECIPES[target.default_recipe])


def test_a_refusal_names_what_is_missing_and_what_there_is() -> None:
    missing = "linear w8a8_dynamic, conv w8a8_static.*: choose one of fp16, int8-weight, int4-weight$"
    with pytest.raises(RequestError, match=f"target onnx-fp16 cannot do recipe 'int8', which needs {missing}"):
        check(TARGETS["onnx-fp16"], RECIPES["int8"])
    with pytest.raises(RequestError, match=r"rtx-sm75 cannot .*, which needs linear w4_g64_zero, conv w4_g64_zero: "):
        check(TARGETS["rtx-sm75"], RECIPES["int4-weight"])
    with pytest.raises(
        RequestError, match=r"cpu cannot do recipe 'fp16'.*: choose one of fp32, int8, int8-weight, int4-weight$"
    ):
        check(TARGETS["cpu"], RECIPES["fp16"])


def test_a_recipe_has_the_floats_of_its_target_and_tables_where_it_can() -> None:
    recipe = RECIPES["int8-weight"]
    assert fitted(recipe, TARGETS["cpu"]) == recipe
    here = fitted(recipe, TARGETS["rtx"])
    assert here.kept == here.ladder[Kind.CONV][-1] == FLOAT16
    table = (Role.TEXT_ENCODER, Kind.EMBEDDING, "text_model.embeddings.token_embedding")
    assert (recipe.format(*table), here.format(*table)) == (W8, FLOAT16)
    assert fitted(RECIPES["fp32"], TARGETS["rtx"]) == RECIPES["fp32"], "it is about floats, and refused"


def test_a_recipe_has_the_formats_that_the_target_does_instead_by_kind_of_layer() -> None:
    instead = {
        Kind.LINEAR: {W8A8_DYNAMIC: W8A8_TOKEN},
        Kind.CONV: {W8A8_STATIC: W8A8_DYNAMIC},
    }
    formats = {
        Kind.LINEAR: frozenset({FLOAT32, W8A8_TOKEN, W8}),
        Kind.CONV: frozenset({FLOAT32, W8A8_DYNAMIC, W8}),
        Kind.EMBEDDING: frozenset({FLOAT32, W8}),
    }
    target = CpuTarget(instead=instead, formats=formats)
    assert "int8" in recipes_for(target)
    assert "int8" not in recipes_for(replace(target, instead={}))
    recipe = fitted(RECIPES["int8"], target)
    assert recipe.format(Role.UNET, Kind.LINEAR, "mid_block.attentions.0.proj_in") == W8A8_TOKEN
    assert recipe.format(Role.UNET, Kind.CONV, "mid_block.resnets.0.conv1") == W8A8_DYNAMIC
    assert recipe.format(Role.UNET, Kind.CONV, "conv_in") == FLOAT32
    assert recipe.ladder[Kind.LINEAR] == (W8A8_TOKEN, W8A8_GROUP, W8, FLOAT32), "equal steps are one"
    assert recipe.after(Kind.CONV, W8A8_DYNAMIC) == (W8, FLOAT32)


def test_several_formats_in_place_of_one_are_steps_of_the_ladder() -> None:
    recipe = fitted(RECIPES["int8"], TARGETS["rtx"])
    for kind in (Kind.LINEAR, Kind.CONV):
        steps = [step for step in recipe.after(kind, W8A8_SIGNED) if step in TARGETS["rtx"].formats[kind]]
        assert steps == [W8A8_SIGNED_CHANNEL, W8, FLOAT16]


def test_turing_multiplies_matrices_in_8_bits_and_convolves_halves() -> None:
    linear, conv = "mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1"
    for target, format in (("rtx", W8A8_SIGNED), ("rtx-sm89", W8A8_SIGNED), ("rtx-sm75", W8)):
        recipe = fitted(RECIPES["int8"], TARGETS[target])
        assert recipe.format(Role.UNET, Kind.LINEAR, linear) == W8A8_SIGNED
        assert recipe.format(Role.UNET, Kind.CONV, conv) == format


def test_libraries_beyond_the_common_ones() -> None:
    common = set(TARGETS["cpu"].libraries)
    assert "onnx" in common
    assert {target.name for target in TARGETS.values() if "tensorrt-rtx-cu12" in target.libraries} == {
        name for name in TARGETS if name.startswith("rtx")
    }


def test_a_wide_vae_has_more_in_8_bits_on_processors_alone() -> None:
    for name, target in TARGETS.items():
        recipe, own = RECIPES["int8"], target.of(Role.VAE_DECODER)
        assert (own.suited(recipe, VaeArchitecture()) is recipe) == (own.name not in ("cpu", "openvino")), name
        assert target.suited(recipe, None) is recipe
