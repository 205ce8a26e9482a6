"""The folders are SDXL's: diffusers opens and runs them as they are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file

from pocketxl.export.miniature.autoencoder import autoencoder
from pocketxl.export.miniature.models import (
    Miniature,
    base_unet,
    parameter_count,
    refiner_unet,
    text_encoder,
    text_encoder_2,
)
from pocketxl.export.miniature.package import base_pipeline, refiner_pipeline, save_folder
from pocketxl.export.miniature.recipe import TrainingRecipe
from pocketxl.export.miniature.sample import generate
from pocketxl.export.miniature.stages import Run
from pocketxl.export.miniature.text import load_tokenizer, tokenize
from pocketxl.export.miniature.tokenizer import write_tokenizers

NAMES = ("red apple", "robot", "pizza", "owl")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    write_tokenizers(NAMES, folder)
    return folder


def test_words_of_names_are_single_tokens(tokenizers: Path) -> None:
    tokens = tokenize(load_tokenizer(tokenizers / "tokenizer"), ["red apple", "an owl"])
    end = tokens.max()
    assert (tokens == end).int().argmax(-1).tolist() == [3, 3]
    assert tokens.shape == (2, 77)
    assert tokenize(load_tokenizer(tokenizers / "tokenizer_2"), ["owl"])[0, -1] == 0


def test_folders_open_and_run_in_diffusers(tokenizers: Path, toy: Miniature, tmp_path: Path) -> None:
    pair = (load_tokenizer(tokenizers / "tokenizer"), load_tokenizer(tokenizers / "tokenizer_2"))
    vae = autoencoder(32)
    first, second = text_encoder(toy), text_encoder_2(toy)
    save_folder(base_pipeline(base_unet(toy, 32), first, second, vae, pair), tmp_path / "base")
    save_folder(refiner_pipeline(refiner_unet(toy, 32), second, vae, pair[1]), tmp_path / "refiner")

    base = StableDiffusionXLPipeline.from_pretrained(tmp_path / "base", torch_dtype=torch.float32)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(tmp_path / "refiner", torch_dtype=torch.float32)
    assert base.config.force_zeros_for_empty_prompt
    assert refiner.config.requires_aesthetics_score
    assert refiner.tokenizer is None
    for pipeline in (base, refiner):
        pipeline.set_progress_bar_config(disable=True)
    pictures = generate(base, refiner, ["an owl", "a robot"], steps=5, height=32, width=32)
    assert pictures.shape == (2, 32, 32, 3)
    assert np.isfinite(pictures).all()

    shared = ("text_encoder_2/model.safetensors", "vae/diffusion_pytorch_model.safetensors", "tokenizer_2/vocab.json")
    for name in shared:
        assert (tmp_path / "base" / name).read_bytes() == (tmp_path / "refiner" / name).read_bytes()
    weights = load_file(tmp_path / "base" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in weights)
    assert all(tensor.dtype == torch.float16 for tensor in weights.values())
    text = "".join(path.read_text("utf-8") for path in tmp_path.glob("*/*/*config.json"))
    assert str(tmp_path) not in text
    assert "_name_or_path" not in text
    assert (
        json.loads((tmp_path / "base" / "unet" / "config.json").read_text("utf-8"))["addition_embed_type"]
        == "text_time"
    )


def test_training_goes_on_from_a_finished_pair(tokenizers: Path, toy: Miniature, tmp_path: Path) -> None:
    pair = (load_tokenizer(tokenizers / "tokenizer"), load_tokenizer(tokenizers / "tokenizer_2"))
    model = replace(toy, vocabulary_size=len(pair[0]))
    trained = base_unet(model, 32)
    parts = (trained, text_encoder(model), text_encoder_2(model), autoencoder(32), pair)
    save_folder(base_pipeline(*parts), tmp_path / "base")
    fine = refiner_unet(model, 32)
    save_folder(refiner_pipeline(fine, parts[2], parts[3], pair[1]), tmp_path / "refiner")
    recipe = TrainingRecipe(
        assets=tmp_path, work=tmp_path / "work", out=tmp_path, start=tmp_path / "base",
        start_refiner=tmp_path / "refiner", resolution=32, model=toy,
    )  # fmt: skip
    run = Run(recipe)
    for source, target in ((trained, run.base["unet"]), (fine, run.refiner["unet"])):
        loaded = target.state_dict()
        for name, tensor in source.state_dict().items():
            torch.testing.assert_close(loaded[name], tensor, rtol=1e-3, atol=1e-6)


def test_the_pair_is_small_enough() -> None:
    model = Miniature()
    with torch.device("meta"):
        parts = (base_unet(model, 128), refiner_unet(model, 128), text_encoder(model), text_encoder_2(model))
        assert parameter_count(*parts, autoencoder(128)) < 28e6
