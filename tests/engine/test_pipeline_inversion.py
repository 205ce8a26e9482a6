"""Embeddings in prompts against diffusers, which loads the same files: both encoders, several vectors, in pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.inversion.read import TOKEN_EMBEDDINGS
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.adapted import Opens, graph_for
from pocketxl.engine.runners.base import call

from ..fixtures.experts import Experts
from ..fixtures.segmented import segmented
from ..tolerances import MODEL_RELATIVE, PICTURE_MEAN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OPTIONS: dict[str, Any] = {
    "height": 64, "width": 64, "num_inference_steps": 4, "guidance_scale": 5.0, "seed": [11], "output_type": "np",
    "latents": np.random.default_rng(17).standard_normal((1, 4, 8, 8), dtype=np.float32),
}  # fmt: skip


@pytest.fixture
def experts(tiny_folders: dict[str, Path]) -> Experts:
    """Ones of our own: embeddings go into their tokenizers."""
    return Experts(tiny_folders)


@pytest.fixture
def folder(tmp_path: Path, pipe: Pipeline) -> Path:
    """`mystyle` of three vectors, `ugly` of one."""
    encoders = pipe.models.text_encoders
    for seed, (name, count) in enumerate((("mystyle", 3), ("ugly", 1))):
        noise = torch.Generator().manual_seed(seed)
        tensors = {
            key: torch.randn(count, encoders[encoder].hidden_size, generator=noise) * 0.1
            for key, encoder in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2"))
        }
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return tmp_path


def load(experts: Experts, folder: Path) -> None:
    """As diffusers' documentation shows it for SDXL: each half into its own encoder.

    SDXL's configs have a wrong `eos_token_id`, for which transformers takes the largest id as the end of the text: with
    new tokens that is one of those. AUTOMATIC1111, ComfyUI and we read the pooled state at the end nevertheless.
    """
    for encoder, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        model = getattr(experts.base, encoder)
        getattr(model, "text_model", model).eos_token_id = getattr(experts.base, tokenizer).eos_token_id
    for name in ("mystyle", "ugly"):
        tensors = load_file(folder / f"{name}.safetensors")
        for key, encoder, tokenizer in (
            ("clip_l", "text_encoder", "tokenizer"),
            ("clip_g", "text_encoder_2", "tokenizer_2"),
        ):
            experts.base.load_textual_inversion(
                {name: tensors[key]},
                token=name,
                text_encoder=getattr(experts.base, encoder),
                tokenizer=getattr(experts.base, tokenizer),
            )


@pytest.mark.parametrize(
    ("ours", "theirs", "negative"),
    [
        ("a red cat, mystyle", "a red cat, mystyle", "a dog"),
        ("embedding:MyStyle cat", "mystyle cat", "ugly, embedding:ugly"),
        ("a cat", "a cat", "mystyle ugly"),
    ],
)
def test_equals_diffusers(
    pipe: Pipeline, experts: Experts, folder: Path, ours: str, theirs: str, negative: str
) -> None:
    made = pipe(ours, negative_prompt=negative, embedding_folder=folder, refiner=False, **OPTIONS).images
    plain = pipe(
        ours.replace("embedding:", ""), negative_prompt=negative.replace("embedding:", ""), refiner=False, **OPTIONS
    )
    load(experts, folder)
    expected = experts(theirs, negative_prompt=negative.replace("embedding:", ""), **OPTIONS)
    assert float(np.abs(made - expected).mean()) <= PICTURE_MEAN
    assert float(np.abs(made - plain.images).mean()) > 10 * PICTURE_MEAN  # it shows


def test_vectors_of_ordinary_tokens_are_those_tokens(pipe: Pipeline, experts: Experts) -> None:
    for name in ("text_encoder", "text_encoder_2"):
        runner = pipe.runners[name]
        assert isinstance(runner, Opens)
        graph = graph_for(runner, (), (TOKEN_EMBEDDINGS,))
        assert graph is not None
        ids = pipe.tokenizers[name].chunks([("a red cat", 1.0)]).ids
        expected = call(runner, {"input_ids": ids})
        model = getattr(experts.base, name)
        table = getattr(model, "text_model", model).embeddings.token_embedding.weight.detach().numpy()
        opened = runner.opened(graph)
        none = call(opened, {"input_ids": ids})
        given = {"input_ids": ids.copy(), TOKEN_EMBEDDINGS: table[ids[0, [3, 2]]]}
        given["input_ids"][0, [2, 3]] = (-2, -1)
        some = call(opened, given)
        for output, value in expected.items():
            scale = np.linalg.norm(value)
            assert np.linalg.norm(none[output] - value) <= MODEL_RELATIVE * scale
            assert np.linalg.norm(some[output] - value) <= MODEL_RELATIVE * scale
        opened.release()


def test_it_goes_with_weights_changes_and_the_refiner(pipe: Pipeline, folder: Path) -> None:
    options = {**OPTIONS, "embedding_folder": folder, "negative_prompt": "ugly"}
    changing = pipe("a (mystyle:1.3) [cat:mystyle:2] BREAK dog", **options)
    plain = pipe("a (mystyle:1.3) cat BREAK dog", **options)
    assert not np.array_equal(changing.images, plain.images)
    assert changing.request.prompts[0].prompt.given == "a (mystyle:1.3) [cat:mystyle:2] BREAK dog"


def test_a_picture_without_embeddings_is_the_same_to_the_bit_before_and_after(pipe: Pipeline, folder: Path) -> None:
    before = pipe("a cat", negative_prompt="a dog", **OPTIONS).images
    pipe("mystyle cat", negative_prompt="a dog", embedding_folder=folder, **OPTIONS)
    after = pipe("a cat", negative_prompt="a dog", embedding_folder=folder, **OPTIONS).images
    np.testing.assert_array_equal(before, after)


def test_engines_without_open_graphs_say_so(folder: Path, tmp_path: Path) -> None:
    with Pipeline.load(segmented(tmp_path / "plain")) as plain:
        models = plain.models.text_encoders
        save_file(
            {
                key: torch.ones(1, models[name].hidden_size)
                for key, name in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2"))
            },
            folder / "word.safetensors",
        )
        with pytest.raises(IncompatibleError, match="no graph of text_encoder that takes any; build it again"):
            plain.plan("a word", embedding_folder=folder)
