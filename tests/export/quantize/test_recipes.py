"""The table of recipes: which layers become what."""

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.export.quantize.recipes import RECIPES, Format, Kind, Recipe, Rule, find_recipe, role


def test_first_matching_rule_decides_and_the_rest_keep_their_floats() -> None:
    recipe = Recipe(
        name="x",
        dtype="float32",
        rules={
            "unet": (
                Rule(kind=Kind.CONV, pattern=r"conv_in", format=Format.KEEP),
                Rule(kind=Kind.CONV, pattern=r"conv_.*", format=Format.W8),
            )
        },
        max_relative_error={},
        min_psnr_db=0.0,
    )
    assert recipe.format("base/unet", Kind.CONV, "conv_in") is Format.KEEP
    assert recipe.format("refiner/unet", Kind.CONV, "conv_out") is Format.W8
    assert recipe.format("base/unet", Kind.CONV, "a.conv_out") is Format.KEEP, "patterns match whole names"
    assert recipe.format("base/unet", Kind.LINEAR, "conv_out") is Format.KEEP
    assert recipe.format("vae_decoder", Kind.CONV, "conv_out") is Format.KEEP


@pytest.mark.parametrize(
    ("component", "kind", "name", "format"),
    [
        ("base/unet", Kind.CONV, "conv_in", Format.KEEP),
        ("base/unet", Kind.CONV, "conv_out", Format.KEEP),
        ("base/unet", Kind.CONV, "down_blocks.0.resnets.0.conv1", Format.W8A8_STATIC),
        ("base/unet", Kind.CONV, "up_blocks.0.resnets.1.conv_shortcut", Format.KEEP),
        ("base/unet", Kind.CONV, "down_blocks.0.downsamplers.0.conv", Format.KEEP),
        ("base/unet", Kind.CONV, "up_blocks.0.upsamplers.0.conv", Format.W8A8_STATIC),
        ("refiner/unet", Kind.LINEAR, "mid_block.attentions.0.proj_in", Format.W8A8_DYNAMIC),
        ("base/unet", Kind.LINEAR, "a.ff.net.0.proj.1", Format.W8A8_DYNAMIC),
        ("base/conditioner", Kind.LINEAR, "a.attn2.to_k", Format.W8),
        ("base/conditioner", Kind.LINEAR, "time_embedding.linear_1", Format.KEEP),
        ("text_encoder_2", Kind.LINEAR, "text_model.encoder.layers.0.mlp.fc1", Format.W8),
        ("text_encoder", Kind.EMBEDDING, "text_model.embeddings.token_embedding", Format.W8),
        ("text_encoder", Kind.EMBEDDING, "text_model.embeddings.position_embedding", Format.KEEP),
        ("vae_decoder", Kind.CONV, "decoder.mid_block.resnets.0.conv1", Format.KEEP),
    ],
)
def test_int8(component: str, kind: Kind, name: str, format: Format) -> None:
    assert RECIPES["int8"].format(component, kind, name) is format


def test_only_static_activations_need_calibration() -> None:
    assert RECIPES["int8"].needs_calibration("refiner/unet")
    assert not RECIPES["int8"].needs_calibration("base/conditioner")
    assert not RECIPES["int8-weight"].needs_calibration("base/unet")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_has_a_threshold_for_every_component(recipe: Recipe) -> None:
    assert set(recipe.max_relative_error) == {"unet", "conditioner", "text_encoder", "vae_decoder"}
    assert all(0 < limit < 1 for limit in recipe.max_relative_error.values())
    assert set(recipe.rules) <= set(recipe.max_relative_error)


def test_unknown_recipe_lists_those_that_there_are() -> None:
    with pytest.raises(RequestError, match=r"int4.*fp32.*int8.*int8-weight"):
        find_recipe("int4")


def test_roles() -> None:
    assert [role(c) for c in ("base/unet", "refiner/conditioner", "text_encoder_2", "vae_decoder")] == [
        "unet",
        "conditioner",
        "text_encoder",
        "vae_decoder",
    ]
