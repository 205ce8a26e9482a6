from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from pocketxl.engine.architecture import Activation, TextEncoderArchitecture
from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.request.embeds import Sides
from pocketxl.engine.request.prompt import parse_prompt
from pocketxl.engine.request.request import Prompt, Text
from pocketxl.engine.runners.base import Held, Loaded, Value, Values
from pocketxl.engine.text.encode import MAX_CHUNKS, PromptTokens, encode, tokenize

from ... import tolerances
from ...fixtures.checkpoints import load_tokenizer, tiny_modules, write_tokenizer

torch.set_num_threads(2)
BASE = read_manifest(FOLDER).models.denoisers["base"]
BOTH = ("text_encoder", "text_encoder_2")
NAMES = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


class TorchEncoder:
    """A runner around a transformers text encoder, which counts its calls."""

    def __init__(self, name: str, module: Any) -> None:
        pooled = getattr(module.config, "projection_dim", 0) if name == "text_encoder_2" else 0
        self.name, self.module, self.loaded = name, module, False
        self.calls: Counter[bytes] = Counter()
        self.spec = TextEncoderArchitecture(
            vocab_size=module.config.vocab_size,
            hidden_size=module.config.hidden_size,
            intermediate_size=module.config.intermediate_size,
            num_hidden_layers=module.config.num_hidden_layers,
            num_attention_heads=module.config.num_attention_heads,
            hidden_act=Activation(module.config.hidden_act),
            eos_token_id=module.config.eos_token_id,
            projection_dim=pooled,
        ).component()
        self.weight_bytes = 0
        self.loads = 0

    def load(self) -> None:
        self.loads += not self.loaded
        self.loaded = True

    def release(self) -> None:
        self.loaded = False

    def leave_behind(self) -> None:
        self.loaded = False

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        assert set(inputs) == {"input_ids"}
        ids = inputs["input_ids"]
        assert isinstance(ids, np.ndarray)
        assert ids.shape == (1, 77)
        assert ids.dtype == np.int64
        self.calls[ids.tobytes()] += 1
        with torch.no_grad():
            out = self.module(torch.from_numpy(ids), output_hidden_states=True)
        outputs: dict[str, Value] = {"hidden_states": out.hidden_states[-2].numpy()}
        if self.name == "text_encoder_2":
            outputs["pooled"] = out.text_embeds.numpy()
        return outputs


def prompt_of(*texts: str | None) -> Prompt:
    """prompt, prompt_2, negative and negative_2; those left out are None."""
    names = ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2")
    given: dict[str, Any] = {
        n: Text(given=t, runs=tuple(parse_prompt(t))) for n, t in zip(names, texts, strict=False) if t is not None
    }
    return Prompt(**given)


def tokens_of(
    model: Any, *texts: str | None, encoders: tuple[str, ...] = BOTH, forced: bool = True, guidance: bool = True
) -> PromptTokens:
    denoiser = replace(BASE, text_encoders=encoders, force_zeros_for_empty_prompt=forced)
    return tokenize(model.tokenizers, prompt_of(*texts), denoiser, guidance=guidance)


def embed(runners: Any, model: Any, *texts: str | None, **how: Any) -> Sides:
    return encode(runners, model.tokenizers, [tokens_of(model, *texts, **how)])[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("model")
    for name in NAMES.values():
        write_tokenizer(folder / name, pad="!" if name == "tokenizer_2" else "<|endoftext|>")
    modules = {name: module.eval() for name, module in tiny_modules("base").items() if name in NAMES}
    tokenizers = {name: load_tokenizer(folder / NAMES[name]) for name in NAMES}
    peers = {NAMES[name]: CLIPTokenizer.from_pretrained(folder / NAMES[name]) for name in NAMES}
    return SimpleNamespace(modules=modules, tokenizers=tokenizers, peers=peers)


@pytest.fixture
def runners(model: Any) -> dict[str, Any]:
    return {name: TorchEncoder(name, module) for name, module in model.modules.items()}


def diffusers_embeds(model: Any, *texts: str | None, kind: str = "base", **keywords: Any) -> list[np.ndarray]:
    """prompt, prompt_2, negative and negative_2 through diffusers' own `encode_prompt`."""
    parts = {**model.modules, **model.peers}
    kinds = {"base": StableDiffusionXLPipeline, "refiner": StableDiffusionXLImg2ImgPipeline}
    if kind == "refiner":
        parts |= {"text_encoder": None, "tokenizer": None}
    pipeline = kinds[kind](**parts, unet=None, vae=None, scheduler=None, **keywords)
    names = ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2")
    with torch.no_grad():
        return [t.numpy() for t in pipeline.encode_prompt(**dict(zip(names, texts, strict=True)), device="cpu")]


def assert_equal_to(ours: Sides, theirs: list[np.ndarray]) -> None:
    positive, negative = ours
    assert negative is not None
    actual = (
        positive.prompt_embeds,
        negative.prompt_embeds,
        positive.pooled_prompt_embeds,
        negative.pooled_prompt_embeds,
    )
    for a, b in zip(actual, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=tolerances.TEXT_EMBEDS["rtol"], atol=tolerances.TEXT_EMBEDS["atol"])


LONG = "a red cat and a blue dog, sky! " * 12


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize(
    "texts",
    [
        ("a red cat!", None, None, None),
        ("a red cat!", None, "", None),
        ("", None, None, None),
        ("a red cat", "blue dog!", None, "ignored when zeros stand for the negative"),
        ("a red cat", "blue dog!", "sky", None),
        ("a red cat", "", "sky", "dog"),
        ("a red cat", None, "", "dog"),
        ("A Café, 3:30 <|endoftext|> cat", None, "図", None),
    ],
)
@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_embeddings_equal_diffusers(
    model: Any, runners: dict[str, Any], texts: tuple[str | None, ...], forced: bool, kind: str
) -> None:
    encoders = ("text_encoder", "text_encoder_2") if kind == "base" else ("text_encoder_2",)
    ours = embed(runners, model, *texts, encoders=encoders, forced=forced)
    assert_equal_to(ours, diffusers_embeds(model, *texts, kind=kind, force_zeros_for_empty_prompt=forced))


def test_without_guidance_there_is_no_negative(model: Any, runners: dict[str, Any]) -> None:
    positive, negative = embed(runners, model, "a red cat", None, "sky", guidance=False)
    assert negative is None
    assert sum(runners["text_encoder"].calls.values()) == 1
    assert positive.prompt_embeds.shape == (1, 77, 192)


@pytest.mark.parametrize("negative", [None, "", "sky", LONG * 3])
def test_long_prompts_are_encoded_chunk_by_chunk(model: Any, runners: dict[str, Any], negative: str | None) -> None:
    positive, other = embed(runners, model, LONG, None, negative)
    assert other is not None
    first, second = model.tokenizers["text_encoder"].chunks([(LONG, 1.0)]).ids[:2]
    rows = {None: 2, "": 2, "sky": 2, LONG * 3: 5}[negative]
    assert positive.prompt_embeds.shape == other.prompt_embeds.shape == (1, 77 * rows, 192)
    # Each chunk is what diffusers makes of the same ids; the rest is empty prompts.
    for name, columns in (("text_encoder", slice(0, 64)), ("text_encoder_2", slice(64, 192))):
        chunks = model.tokenizers[name].chunks([(LONG, 1.0)]).ids
        empty = model.tokenizers[name].empty(1).ids
        for row in range(rows):
            ids = chunks[row : row + 1] if row < 2 else empty
            expected = TorchEncoder(name, model.modules[name])({"input_ids": ids})
            actual = positive.prompt_embeds[:, 77 * row : 77 * (row + 1), columns]
            np.testing.assert_array_equal(actual, expected["hidden_states"])
            if row == 0 and name == "text_encoder_2":
                np.testing.assert_array_equal(positive.pooled_prompt_embeds, expected["pooled"])
    assert not np.array_equal(first, second)
    assert (negative is None) == (not other.prompt_embeds.any())


def test_both_encoders_get_the_same_number_of_chunks(model: Any, runners: dict[str, Any]) -> None:
    positive, _ = embed(runners, model, "cat", LONG)
    assert positive.prompt_embeds.shape == (1, 154, 192)
    empty = TorchEncoder("text_encoder", model.modules["text_encoder"])(
        {"input_ids": model.tokenizers["text_encoder"].empty(1).ids}
    )
    np.testing.assert_array_equal(positive.prompt_embeds[:, 77:, :64], empty["hidden_states"])


def test_every_chunk_is_encoded_once(model: Any, runners: dict[str, Any]) -> None:
    text = "a " * 75 * 3  # three equal chunks
    tokens = [tokens_of(model, text, None, ""), tokens_of(model, text, None, "", encoders=("text_encoder_2",))]
    encode(runners, model.tokenizers, tokens)
    # One full chunk and the empty one; the refiner takes the base's.
    assert [sum(r.calls.values()) for r in runners.values()] == [2, 2]


def test_one_encoder_is_loaded_at_a_time(model: Any, runners: dict[str, Any]) -> None:
    encode(runners, model.tokenizers, [tokens_of(model, "a red cat", None, "sky")], use=Loaded)
    assert [r.loads for r in runners.values()] == [1, 1]
    assert not any(r.loaded for r in runners.values())


def test_many_prompts_load_each_encoder_once(model: Any, runners: dict[str, Any]) -> None:
    texts = [("a red cat", None, "sky"), ("(blue:1.2) dog", None, None)]
    tokens = [tokens_of(model, *text) for text in texts]
    tokens += [tokens_of(model, *text, encoders=("text_encoder_2",)) for text in texts]
    together = encode(runners, model.tokenizers, tokens, use=Loaded)
    assert [r.loads for r in runners.values()] == [1, 1]
    for (positive, negative), text in zip(together[:2], texts, strict=True):
        alone, without = embed(runners, model, *text)
        assert negative is not None
        assert without is not None
        np.testing.assert_array_equal(positive.prompt_embeds, alone.prompt_embeds)
        np.testing.assert_array_equal(negative.pooled_prompt_embeds, without.pooled_prompt_embeds)
    for base, refiner in zip(together[:2], together[2:], strict=True):
        np.testing.assert_array_equal(base[0].prompt_embeds[..., 64:], refiner[0].prompt_embeds)


def test_weights_of_one_change_no_bit(model: Any, runners: dict[str, Any]) -> None:
    plain, _ = embed(runners, model, "a red cat")
    for text in ("(a red cat:1)", "([a red cat])", "a (red:1.0) cat"):
        weighted, _ = embed(runners, model, text)
        np.testing.assert_array_equal(weighted.prompt_embeds, plain.prompt_embeds)


def test_weights_interpolate_from_the_empty_prompt(model: Any, runners: dict[str, Any]) -> None:
    plain, empty = embed(runners, model, "a red cat", None, "")
    assert empty is not None
    for weight in (0.0, 0.5, 1.3, -1.0):
        weighted, _ = embed(runners, model, f"a (red:{weight}) cat")
        expected = plain.prompt_embeds.copy()
        token = 2  # begin, a, red
        expected[:, token] = (
            empty.prompt_embeds[:, token] + weight * (plain.prompt_embeds - empty.prompt_embeds)[:, token]
        )
        np.testing.assert_allclose(
            weighted.prompt_embeds, expected, rtol=tolerances.TEXT_EMBEDS["rtol"], atol=tolerances.TEXT_EMBEDS["atol"]
        )
        np.testing.assert_array_equal(weighted.prompt_embeds[:, 3:], plain.prompt_embeds[:, 3:])
        np.testing.assert_array_equal(weighted.pooled_prompt_embeds, plain.pooled_prompt_embeds)


def test_weights_count_in_the_negative_prompt_too(model: Any, runners: dict[str, Any]) -> None:
    _, plain = embed(runners, model, "cat", None, "sky")
    _, weighted = embed(runners, model, "cat", None, "(sky:1.5)")
    assert plain is not None
    assert weighted is not None
    assert np.abs(weighted.prompt_embeds - plain.prompt_embeds)[:, 1].max() > 0.01
    np.testing.assert_array_equal(weighted.prompt_embeds[:, 2:], plain.prompt_embeds[:, 2:])


def test_too_long_a_prompt_is_refused_before_encoding(model: Any, runners: dict[str, Any]) -> None:
    tokens_of(model, "a " * 75 * MAX_CHUNKS)
    with pytest.raises(RequestError, match="17 chunks of 75 tokens long, at most 16"):
        embed(runners, model, "a " * (75 * MAX_CHUNKS + 1))
    assert not any(r.calls for r in runners.values())
