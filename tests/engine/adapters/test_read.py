"""Adapter files → pairs: what they add to each layer is what diffusers with PEFT adds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketxl.engine.adapters.pairs import Lora
from pocketxl.engine.adapters.read import read_lora
from pocketxl.engine.architecture import Models

from ...fixtures.adapters import (
    base_layers,
    delta,
    kohya,
    lora,
    miniature_models,
    original,
    original_kohya,
    text_layers,
    write,
)

MODELS = miniature_models()
WEIGHTS = Path(__file__).parents[3] / "export/miniature/weights"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """diffusers' pipeline of the miniature's base."""
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(str(WEIGHTS / "base"), dtype=torch.float32)


def deltas(found: Lora) -> dict[tuple[str, str], Tensor]:
    """(component, layer) → what is added to its weight."""
    return {(part, name): delta(pair) for part, pairs in found.pairs.items() for name, pair in pairs.items()}


def theirs(pipeline: Any, file: Path, models: Models = MODELS) -> dict[tuple[str, str], Tensor]:
    """The same by diffusers and PEFT, for the layers that an engine has."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    pipeline.unload_lora_weights()  # of a test before this one that failed
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    found = {}
    where = {layer.name: layer.component for layer in base_layers(models)}
    for name, place in (("unet", "unet"), ("text_encoder", "te1"), ("text_encoder_2", "te2")):
        layers = where if name == "unet" else {layer.name: layer.component for layer in text_layers(models, place)}
        for path, module in getattr(pipeline, name).named_modules():
            if isinstance(module, BaseTunerLayer):
                ours = path if name == "unet" or path.startswith("text_") else f"text_model.{path}"
                if layers[ours]:
                    found[layers[ours], ours] = module.get_delta_weight(module.active_adapters[0]).detach().squeeze()
    pipeline.unload_lora_weights()
    return found


def assert_same(ours: Mapping[Any, Tensor], theirs: Mapping[Any, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name].squeeze(), expected.squeeze(), rtol=1e-5, atol=1e-5)


def attentions(layers: list[Any]) -> list[Any]:
    return [layer for layer in layers if layer.name.endswith(ATTENTION)]


def everything(spelled: str) -> dict[str, Tensor]:
    """A file that changes every layer of the base and of both text encoders, in one of the spellings."""
    unet, one, two = base_layers(MODELS), text_layers(MODELS, "te1"), text_layers(MODELS, "te2")
    if spelled == "kohya":
        parts = ((unet, kohya("lora_unet")), (one, kohya("lora_te1")), (two, kohya("lora_te2")))
        return {k: v for layers, spell in parts for k, v in lora(layers, spell).items()}
    if spelled == "kohya, original":
        return lora(unet, original_kohya(MODELS))
    if spelled == "diffusers":  # as it was before PEFT

        def before(layer: Any) -> str:
            stem, _, part = layer.name.partition(".to_")
            return f"unet.{stem}.processor.to_{part.removesuffix('.0')}_lora"

        return lora(attentions(unet), before, names=("down.weight", "up.weight"), alpha=None)
    found: dict[str, Tensor] = {}
    for layers, prefix in ((unet, "unet"), (one, "text_encoder"), (two, "text_encoder_2")):
        names = ("lora_A.weight", "lora_B.weight")
        found |= lora(layers, lambda layer, prefix=prefix: f"{prefix}.{layer.name}", names=names, alpha=None)
    return found


@pytest.mark.parametrize("spelled", ["kohya", "peft", "diffusers"])
def test_a_lora_of_every_layer_adds_what_diffusers_adds(pipeline: Any, tmp_path: Path, spelled: str) -> None:
    # diffusers gives the text projection another rank than the file has where ranks are mixed, and random numbers.
    # In kohya's spelling with diffusers' layout it has no name for the added embedding.
    unread = ("text_projection", "add_embedding") if spelled == "kohya" else ("text_projection",)
    tensors = {k: v for k, v in everything(spelled).items() if not any(name in k for name in unread)}
    file = write(tmp_path / "all.safetensors", tensors)
    found = read_lora(file, MODELS)
    assert not found.unmatched
    assert_same(deltas(found), theirs(pipeline, file))


def test_the_original_layout_says_the_same_as_diffusers_layout(tmp_path: Path) -> None:
    named = write(tmp_path / "a.safetensors", lora(base_layers(MODELS), kohya("lora_unet")))
    unnamed = write(tmp_path / "b.safetensors", everything("kohya, original"))
    dotted = lora(base_layers(MODELS), lambda layer: f"diffusion_model.{original(MODELS)(layer)}")
    assert_same(deltas(read_lora(unnamed, MODELS)), deltas(read_lora(named, MODELS)))
    assert_same(deltas(read_lora(write(tmp_path / "c.safetensors", dotted), MODELS)), deltas(read_lora(named, MODELS)))


def test_the_settings_in_a_file_of_diffusers_give_alpha(pipeline: Any, tmp_path: Path) -> None:
    layers = attentions(base_layers(MODELS))
    tensors = lora(layers, lambda layer: f"unet.{layer.name}", names=("lora_A.weight", "lora_B.weight"), alpha=None)
    ranks = {name.removeprefix("unet.").removesuffix(".lora_A.weight"): len(t) for name, t in tensors.items()
             if "lora_A" in name}  # fmt: skip
    first = layers[0].name
    settings = {
        "unet.r": 3, "unet.lora_alpha": 7, "unet.use_rslora": True, "unet.alpha_pattern": {first: 5},
        "unet.rank_pattern": {name: rank for name, rank in ranks.items() if rank != 3},
        "unet.target_modules": [layer.name for layer in layers],
    }  # fmt: skip
    file = write(tmp_path / "s.safetensors", tensors, {"lora_adapter_metadata": json.dumps(settings)})
    found = read_lora(file, MODELS)
    assert_same(deltas(found), theirs(pipeline, file))
    scales = {round(pair.scale, 5) for pairs in found.pairs.values() for pair in pairs.values()}
    assert scales == {round(5 / 3**0.5, 5), round(7 / 3**0.5, 5), round(7 / 4**0.5, 5)}


def test_hoisted_layers_are_the_conditioners(tmp_path: Path) -> None:
    found = read_lora(write(tmp_path / "a.safetensors", everything("kohya")), MODELS)
    assert set(found.pairs) == {"base/unet", "base/conditioner", "text_encoder", "text_encoder_2"}
    hoisted = ("attn2.to_k", "attn2.to_v", "time_emb_proj", "linear_1", "linear_2")
    assert all(name.endswith(hoisted) for name in found.pairs["base/conditioner"])
    assert not any(name.endswith(hoisted) for name in found.pairs["base/unet"])


def test_a_lora_of_the_refiner_is_told_from_one_of_the_base_by_its_sizes(tmp_path: Path) -> None:
    from pocketxl.engine.adapters.layers import unet_layers

    layers = list(unet_layers(MODELS.denoisers["refiner"].unet, "refiner"))
    found = read_lora(write(tmp_path / "r.safetensors", lora(layers, kohya("lora_unet"))), MODELS)
    assert set(found.pairs) == {"refiner/unet", "refiner/conditioner"}


def test_what_no_layer_answers_to_is_told_by_its_key(tmp_path: Path) -> None:
    tensors = lora(attentions(base_layers(MODELS)), kohya("lora_unet"))
    extra = {"lora_unet_down_blocks_9_conv.alpha": torch.tensor(1.0), "nothing": torch.zeros(2),
             "lora_unet_conv_in.diff_b": torch.zeros(64)}  # fmt: skip
    found = read_lora(write(tmp_path / "a.safetensors", tensors | extra), MODELS)
    assert found.unmatched == tuple(sorted(extra))
    assert len(found.pairs["base/unet"]) + len(found.pairs["base/conditioner"]) == len(tensors) // 3


def test_a_layer_of_a_text_encoder_that_nothing_reads_is_passed_over(tmp_path: Path) -> None:
    layers = text_layers(MODELS, "te1")
    found = read_lora(write(tmp_path / "a.safetensors", lora(layers, kohya("lora_te1"))), MODELS)
    assert not found.unmatched
    assert len(found.pairs["text_encoder"]) == sum(bool(layer.component) for layer in layers) < len(layers)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_float_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {k: v.to(dtype) if v.ndim else v for k, v in lora(base_layers(MODELS)[:6], kohya("lora_unet")).items()}
    found = read_lora(write(tmp_path / "a.safetensors", tensors), MODELS)
    pair = found.pairs["base/unet"]["conv_in"]
    assert np.array_equal(pair.down, tensors["lora_unet_conv_in.lora_down.weight"].float().numpy())


def test_name_and_digest_are_the_files(tmp_path: Path) -> None:
    import hashlib

    file = write(tmp_path / "my style.safetensors", lora(base_layers(MODELS)[:1], kohya("lora_unet")))
    found = read_lora(file, MODELS)
    assert (found.name, found.digest) == ("my style", hashlib.sha256(file.read_bytes()).hexdigest())
    assert found.error == 0
