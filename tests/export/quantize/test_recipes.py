"""The table of recipes: which layers become what."""

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.specs import Role
from pocketxl.export.quantize.formats import (
    FLOAT16,
    FLOAT32,
    FP8_TENSOR,
    KEEP,
    W8,
    W8A8_DYNAMIC,
    W8A8_GROUP,
    W8A8_STATIC,
    W8A8_TOKEN,
    Format,
    Kind,
)
from pocketxl.export.quantize.recipes import RECIPES, Recipe, Rule, find_recipe


def test_first_matching_rule_decides_and_the_rest_keep_their_floats() -> None:
    recipe = Recipe(
        name="x",
        kept=FLOAT32,
        rules={
            Role.UNET: (
                Rule(kind=Kind.CONV, pattern=r"conv_in", format=KEEP),
                Rule(kind=Kind.CONV, pattern=r"conv_.*", format=W8),
            )
        },
        max_relative_error={},
        min_psnr_db=0.0,
    )
    assert recipe.format(Role.UNET, Kind.CONV, "conv_in") == FLOAT32
    assert recipe.format(Role.UNET, Kind.CONV, "conv_out") == W8
    assert recipe.format(Role.UNET, Kind.CONV, "a.conv_out") == FLOAT32, "patterns match whole names"
    assert recipe.format(Role.UNET, Kind.LINEAR, "conv_out") == FLOAT32
    assert recipe.format(Role.VAE_DECODER, Kind.CONV, "conv_out") == FLOAT32


@pytest.mark.parametrize(
    ("role", "kind", "name", "format"),
    [
        (Role.UNET, Kind.CONV, "conv_in", FLOAT32),
        (Role.UNET, Kind.CONV, "conv_out", FLOAT32),
        (Role.UNET, Kind.CONV, "down_blocks.0.resnets.0.conv1", W8A8_STATIC),
        (Role.UNET, Kind.CONV, "up_blocks.0.resnets.1.conv_shortcut", FLOAT32),
        (Role.UNET, Kind.CONV, "down_blocks.0.downsamplers.0.conv", FLOAT32),
        (Role.UNET, Kind.CONV, "up_blocks.0.upsamplers.0.conv", W8A8_STATIC),
        (Role.UNET, Kind.LINEAR, "mid_block.attentions.0.proj_in", W8A8_DYNAMIC),
        (Role.UNET, Kind.LINEAR, "a.ff.net.0.proj.1", W8A8_DYNAMIC),
        (Role.CONDITIONER, Kind.LINEAR, "a.attn2.to_k", W8),
        (Role.CONDITIONER, Kind.LINEAR, "time_embedding.linear_1", FLOAT32),
        (Role.TEXT_ENCODER, Kind.LINEAR, "text_model.encoder.layers.0.mlp.fc1", W8A8_DYNAMIC),
        (Role.TEXT_ENCODER, Kind.EMBEDDING, "text_model.embeddings.token_embedding", W8),
        (Role.TEXT_ENCODER, Kind.EMBEDDING, "text_model.embeddings.position_embedding", FLOAT32),
        (Role.VAE_DECODER, Kind.CONV, "decoder.mid_block.resnets.0.conv1", W8A8_STATIC),
        (Role.VAE_DECODER, Kind.CONV, "decoder.up_blocks.1.upsamplers.0.conv", W8A8_STATIC),
        (Role.VAE_DECODER, Kind.CONV, "decoder.up_blocks.2.resnets.0.conv2", W8A8_STATIC),
        (Role.VAE_DECODER, Kind.CONV, "decoder.up_blocks.2.resnets.0.conv_shortcut", FLOAT32),
        (Role.VAE_DECODER, Kind.CONV, "decoder.up_blocks.2.resnets.1.conv1", FLOAT32),
        (Role.VAE_DECODER, Kind.CONV, "decoder.up_blocks.3.resnets.0.conv1", FLOAT32),
        (Role.VAE_DECODER, Kind.CONV, "decoder.conv_in", FLOAT32),
    ],
)
def test_int8(role: Role, kind: Kind, name: str, format: Format) -> None:
    assert RECIPES["int8"].format(role, kind, name) == format


def test_what_a_layer_may_have_instead_stands_behind_its_format() -> None:
    int8 = RECIPES["int8"]
    assert int8.after(Kind.LINEAR, W8A8_DYNAMIC) == (W8A8_TOKEN, W8A8_GROUP, W8, FLOAT32)
    assert int8.after(Kind.LINEAR, W8) == (FLOAT32,)
    assert int8.after(Kind.EMBEDDING, W8) == ()
    assert int8.after(Kind.CONV, W8A8_STATIC)[-1] == FLOAT32, "every ladder ends in floats"
    assert RECIPES["fp32"].after(Kind.LINEAR, FLOAT32) == ()


def test_only_recipes_with_scales_need_to_know_what_layers_show() -> None:
    in_floats = {Role.HINT_ENCODER, Role.TINY_DECODER, Role.UPSCALER}
    assert all(RECIPES["int8"].quantizes(role) is (role not in in_floats) for role in Role)
    assert not any(RECIPES[name].quantizes(role) for name in ("fp32", "fp16") for role in Role)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_has_a_threshold_for_every_component(recipe: Recipe) -> None:
    assert set(recipe.max_relative_error) == set(Role)
    assert all(0 < limit < 1 for limit in recipe.max_relative_error.values())
    assert set(recipe.rules) <= set(recipe.max_relative_error)


def test_unknown_recipe_lists_those_that_there_are() -> None:
    with pytest.raises(RequestError, match=r"int3.*fp32.*int8.*int8-weight.*int4"):
        find_recipe("int3")


def test_what_a_recipe_asks_of_a_target() -> None:
    stored = [kind for kind in Kind if kind is not Kind.ATTENTION]
    assert all(RECIPES["fp16"].formats(role) == dict.fromkeys(stored, (FLOAT16,)) for role in Role)
    assert RECIPES["fp8"].formats(Role.UNET)[Kind.ATTENTION] == (FP8_TENSOR,)
    assert RECIPES["int8"].formats(Role.UNET) == {
        Kind.LINEAR: (FLOAT32, W8A8_DYNAMIC),
        Kind.CONV: (FLOAT32, W8A8_STATIC),
        Kind.EMBEDDING: (FLOAT32,),
    }
    assert RECIPES["int8"].formats(Role.TEXT_ENCODER) == {
        Kind.LINEAR: (FLOAT32, W8A8_DYNAMIC),
        Kind.CONV: (FLOAT32,),
        Kind.EMBEDDING: (FLOAT32, W8),
    }


def test_a_target_s_own_formats_stand_in_place_of_a_recipe_s() -> None:
    there = {Kind.LINEAR: {W8A8_DYNAMIC: W8A8_TOKEN}, Kind.CONV: {}}
    found = RECIPES["int8"].with_formats(there)
    assert found.format(Role.UNET, Kind.LINEAR, "mid_block.x") == W8A8_TOKEN
    assert found.format(Role.UNET, Kind.CONV, "mid_block.x") == W8A8_STATIC
    assert found.ladder[Kind.LINEAR].count(W8A8_TOKEN) == 1, "two steps of the ladder became one"
    floats = {kind: {FLOAT16: FLOAT32} for kind in Kind}
    assert RECIPES["fp16"].with_formats(floats).kept == FLOAT32
    assert RECIPES["fp16"].with_formats({Kind.CONV: {FLOAT16: FLOAT32}}).kept == FLOAT16, "not for every kind"
