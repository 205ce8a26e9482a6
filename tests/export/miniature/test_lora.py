"""The recipe of the example LoRA, and the file that ships."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.adapters.notes import read_notes
from pocketxl.engine.adapters.read import open_adapter, read_lora
from pocketxl.export.miniature.lora import INK, PAPER, LoraRecipe, blueprint, draw_captions
from pocketxl.export.miniature.lora_file import write_kohya
from pocketxl.export.miniature.lora_layers import attach

from ...fixtures.adapters import delta, miniature_models

SHIPPED = Path(__file__).parents[3] / "engine/miniature/loras/blueprint.safetensors"


def small_unet() -> nn.Module:
    from pocketxl.export.miniature.models import Miniature, base_unet

    unet: nn.Module = base_unet(Miniature(), 128)
    return unet


def weight(network: nn.Module, name: str) -> Tensor:
    found = network.get_submodule(name).weight
    assert isinstance(found, Tensor)
    return found.detach()


def test_pairs_begin_as_nothing_and_the_file_has_what_they_became(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = small_unet()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    pairs = attach(unet, rank=2, conv_rank=1)
    for name in pairs:
        assert torch.equal(weight(unet, name), before[f"{name}.weight"])
    with torch.no_grad():
        for trained in pairs.values():
            trained.up.normal_()
    file = tmp_path / "trained.safetensors"
    write_kohya(pairs, file, title="trained", steps=1, images=2)
    found = read_lora(file, miniature_models())
    ours = {name: pair for component in found.pairs.values() for name, pair in component.items()}
    assert ours.keys() == pairs.keys()
    assert not found.unmatched
    for name, pair in ours.items():
        change = weight(unet, name) - before[f"{name}.weight"]
        torch.testing.assert_close(delta(pair), change, rtol=5e-3, atol=5e-3)  # the file is float16


def test_every_attention_and_every_resnet_is_in_it() -> None:
    names = set(attach(small_unet(), rank=2, conv_rank=1))
    for part in ("attn1.to_q", "attn2.to_k", "attn2.to_v", "to_out.0", "proj_in", "resnets.0.conv1", "resnets.0.conv2"):
        assert any(name.endswith(part) for name in names), part


def test_a_blueprint_is_paper_where_nothing_changes_and_ink_on_edges() -> None:
    picture = np.zeros((32, 32, 3), np.float32)
    picture[:, 16:] = (1, 0, 0)
    drawn = blueprint(picture)
    assert np.allclose(drawn[:, 0], PAPER * 0.8, atol=1e-3)
    assert np.allclose(drawn[:, 15:17], INK, atol=0.02)
    assert np.allclose(drawn[:, -1] / drawn[0, -1], 1)


def test_captions_name_every_thing_before_one_comes_twice_and_are_the_same_for_a_seed() -> None:
    from pocketxl.export.miniature.vocabulary import core_names

    drawn = draw_captions(len(core_names()), 0)
    assert drawn == draw_captions(len(core_names()), 0) != draw_captions(len(core_names()), 1)
    for name in core_names():
        assert any(name in caption for caption in drawn), name


def test_what_ships_is_small_and_fits_the_bundled_engine() -> None:
    assert SHIPPED.stat().st_size < 300_000
    found = read_lora(SHIPPED, miniature_models())
    assert set(found.pairs) == {"base/unet", "base/conditioner"}
    assert not found.unmatched
    assert found.error == 0
    notes = read_notes(open_adapter(SHIPPED))
    assert (notes.title, notes.kinds) == ("blueprint", {"LoRA": 124})
    recipe = LoraRecipe()
    assert set(notes.ranks) == {recipe.rank, recipe.conv_rank}


@pytest.mark.slow
def test_the_style_takes_the_colour_out_of_a_picture() -> None:
    """By diffusers, with the shipped file: a red thing on orange is blue, and darker."""
    from diffusers import StableDiffusionXLPipeline

    from pocketxl.export.miniature.lora import WEIGHTS
    from pocketxl.export.miniature.sample import generate

    pipeline = StableDiffusionXLPipeline.from_pretrained(str(WEIGHTS), dtype=torch.float32)
    prompt = ["a red apple on an orange background"]
    plain = generate(pipeline, None, prompt, steps=12)[0].mean((0, 1))
    pipeline.load_lora_weights(str(SHIPPED.parent), weight_name=SHIPPED.name)
    styled = generate(pipeline, None, prompt, steps=12)[0].mean((0, 1))
    assert plain[0] > plain[2] + 0.3
    assert styled[2] > styled[0] + 0.1
