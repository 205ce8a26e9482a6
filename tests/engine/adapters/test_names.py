"""Names of full-size layers: the original layout against diffusers' own conversion, and every spelling alike."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.adapters.keys import read_key
from pocketxl.engine.adapters.layers import Layer, unet_layers
from pocketxl.engine.adapters.names import text_encoder_names, unet_names
from pocketxl.engine.architecture import Models
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings

from ...fixtures.adapters import kohya, miniature_models, original, text_layers


def full_size() -> Models:
    """SDXL's base and refiner as published."""
    mini = miniature_models()
    unets = {kind: read_settings(BUNDLED / kind).unet_architecture for kind in mini.denoisers}
    return replace(mini, denoisers={kind: replace(model, unet=unets[kind]) for kind, model in mini.denoisers.items()})


MODELS = full_size()
NAMES = unet_names(MODELS)
LAYERS: dict[str, list[Layer]] = {kind: list(unet_layers(model.unet, kind)) for kind, model in MODELS.denoisers.items()}
KNOWN = {
    "input_blocks_4_1_transformer_blocks_0_attn1_to_q": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj": (
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"
    ),
    "middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
    "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
    "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
    "output_blocks_0_0_skip_connection": "up_blocks.0.resnets.0.conv_shortcut",
    "label_emb_0_2": "add_embedding.linear_2",
    "time_embed_0": "time_embedding.linear_1",
    "out_2": "conv_out",
}


@pytest.mark.parametrize("written", KNOWN)
def test_names_of_published_files(written: str) -> None:
    assert NAMES["base"][written].name == KNOWN[written]


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_no_two_layers_share_a_name_and_every_one_has_two(kind: str) -> None:
    for spell in (kohya("lora_unet"), original(MODELS, kind)):
        spelled = {spell(layer): layer.name for layer in LAYERS[kind]}
        assert len(spelled) == len(LAYERS[kind])
        for written, name in spelled.items():
            assert NAMES[kind][written.removeprefix("lora_unet_").replace(".", "_")].name == name


def test_the_original_layout_of_attention_is_diffusers_own_conversion() -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_unet_lora_key, _maybe_map_sgm_blocks_to_diffusers

    class Config:
        layers_per_block = MODELS.denoisers["base"].unet.layers_per_block

    spell = original(MODELS)
    layers = [layer for layer in LAYERS["base"] if ".attentions." in layer.name]
    keys = {f"lora_unet_{spell(layer).replace('.', '_')}.lora_down.weight": index for index, layer in enumerate(layers)}
    assert len(keys) > 700
    theirs: dict[str, Any] = _maybe_map_sgm_blocks_to_diffusers(dict(keys), Config)
    for key, index in theirs.items():
        read = read_key(f"unet.{_convert_unet_lora_key(key).replace('.lora.down', '.lora_down')}")
        assert read is not None
        assert NAMES["base"][read.module].name == layers[index].name


@given(data=st.data())
def test_every_spelling_of_a_layer_is_that_layer(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["base", "refiner"]))
    layer = data.draw(st.sampled_from(LAYERS[kind]))
    first = original(MODELS, kind)(layer)
    module = data.draw(st.sampled_from([
        f"lora_unet_{layer.name.replace('.', '_')}", f"lora_unet_{first.replace('.', '_')}", f"unet.{layer.name}",
        f"diffusion_model.{first}", f"base_model.model.{layer.name}", f"model.diffusion_model.{first}",
    ]))  # fmt: skip
    part = data.draw(st.sampled_from([
        "lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "alpha", "hada_w1_a", "diff",
    ]))  # fmt: skip
    read = read_key(f"{module}.{part}")
    assert read is not None
    assert read.place == "unet"
    assert NAMES[kind][read.module] == layer


def test_text_encoders_by_every_prefix() -> None:
    models = miniature_models()
    names = text_encoder_names(models)
    prefixes = {
        "te1": ("lora_te1_", "lora_te_", "text_encoder.", "text_encoders.clip_l.transformer.", "clip_l."),
        "te2": ("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer.", "clip_g."),
    }
    for place, own in prefixes.items():
        for layer in text_layers(models, place):
            for prefix in own:
                for written in {layer.name, layer.name.removeprefix("text_model.")}:
                    spelled = written.replace(".", "_") if prefix.endswith("_") else written
                    read = read_key(f"{prefix}{spelled}.lora_down.weight")
                    assert read is not None
                    assert read.place == place
                    assert names[place][read.module] == layer
