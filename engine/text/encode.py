"""Prompts → what the U-Nets see of them: hidden states of both text encoders side by side, and the pooled state.

Prompts up to 75 tokens give what diffusers' `encode_prompt` gives. Longer ones are cut into chunks of 75 that are
encoded one by one and joined (AUTOMATIC1111's way); prompt and negative prompt get the same number of chunks.

Weights pull a token's hidden state away from (or towards) the state that an empty prompt has at its place:
`empty + weight * (state - empty)`, as ComfyUI does (`comfy/sd1_clip.py`). AUTOMATIC1111 multiplies and then restores
the mean of all states; a mean near zero makes that correction arbitrary, and one word's weight changes all others. Here
other tokens keep their states exactly, weight 0 is the empty prompt's state, and negative weights mean something.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from ..errors import RequestError
from ..request.prompt import parse_prompt
from ..runners.base import Runner, check_outputs
from .tokenizer import Chunks, Tokenizer

MAX_CHUNKS = 16
"""1,200 tokens; the memory of the keys and values grows with every chunk."""
BASE_ENCODERS = ("text_encoder", "text_encoder_2")
Cache = MutableMapping[tuple[str, bytes], dict[str, np.ndarray]]
"""(encoder, bytes of 77 ids) → outputs of that encoder. Give one to several calls, and no chunk is encoded twice."""


@dataclass(frozen=True, kw_only=True)
class PromptEmbeds:
    """One prompt. `prompt_embeds`: (1, 77·chunks, width) float32. `pooled_prompt_embeds`: (1, P) float32."""

    prompt_embeds: np.ndarray
    pooled_prompt_embeds: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PromptTokens:
    """A prompt and its negative, tokenized for each encoder in order, with equal chunk counts.

    `negative` is None where it needs no encoding; `zeros` says that zeros stand for it.
    """

    text_encoders: tuple[str, ...]
    positive: tuple[Chunks, ...]
    negative: tuple[Chunks, ...] | None
    zeros: bool

    @property
    def tokens(self) -> int:
        """Length of the prompt's embeddings."""
        return int(self.positive[0].ids.size)


def tokenize(
    tokenizers: Mapping[str, Tokenizer],
    prompt: str,
    prompt_2: str | None = None,
    negative_prompt: str | None = None,
    negative_prompt_2: str | None = None,
    *,
    text_encoders: Sequence[str] = BASE_ENCODERS,
    force_zeros_for_empty_prompt: bool = True,
    guidance: bool = True,
) -> PromptTokens:
    """Tokenize a prompt and its negative. `tokenizers`: by the name of the text encoder that each one serves.

    The rules are diffusers': the first encoder of the model gets `prompt`, the second `prompt_2` or else `prompt` (so a
    refiner, whose only encoder is the second, gets `prompt`); zeros stand for the negative only if `negative_prompt` is
    None and the model forces zeros; an empty string is encoded. Without `guidance` there is no negative.
    Raises `RequestError` for more than `MAX_CHUNKS` chunks or a weight out of range.
    """
    zeros = guidance and negative_prompt is None and force_zeros_for_empty_prompt
    positive = _both(tokenizers, text_encoders, prompt, prompt_2)
    negative = []
    if guidance and not zeros:
        negative = _both(tokenizers, text_encoders, negative_prompt or "", negative_prompt_2)
    rows = max(len(chunks.ids) for chunks in (*positive, *negative))
    if rows > MAX_CHUNKS:
        raise RequestError(
            f"the prompt is {rows} chunks of 75 tokens long, at most {MAX_CHUNKS} are allowed; shorten it"
        )
    padded = [
        _pad(tokenizers[name], chunks, rows)
        for name, chunks in zip((*text_encoders, *text_encoders), (*positive, *negative), strict=False)
    ]
    count = len(positive)
    return PromptTokens(
        text_encoders=tuple(text_encoders),
        positive=tuple(padded[:count]),
        negative=tuple(padded[count:]) or None,
        zeros=zeros,
    )


def encode(
    runners: Mapping[str, Runner],
    tokenizers: Mapping[str, Tokenizer],
    tokens: PromptTokens,
    *,
    cache: Cache | None = None,
    use: Callable[[Runner], AbstractContextManager[object]] = nullcontext,
) -> tuple[PromptEmbeds, PromptEmbeds | None]:
    """Encode one tokenized prompt and its negative (None without guidance); see `encode_all`."""
    return encode_all(runners, tokenizers, [tokens], cache=cache, use=use)[0]


def encode_all(
    runners: Mapping[str, Runner],
    tokenizers: Mapping[str, Tokenizer],
    prompts: Sequence[PromptTokens],
    *,
    cache: Cache | None = None,
    use: Callable[[Runner], AbstractContextManager[object]] = nullcontext,
) -> list[tuple[PromptEmbeds, PromptEmbeds | None]]:
    """Encode tokenized prompts, of base and refiner alike, and their negatives (None without guidance).

    Encoders run one after another, each inside one `use(runner)` and only if `cache` lacks a chunk, so `use=Loaded`
    loads each encoder once and keeps one in memory at a time. Chunks run one by one: a result cannot depend on what
    else is encoded with it, even where a quantized encoder takes its scales from the whole batch.
    Raises `NumericError` for NaN or Inf in an encoder's outputs.
    """
    cache = {} if cache is None else cache
    for name in dict.fromkeys(name for tokens in prompts for name in tokens.text_encoders):
        wanted = [row for tokens in prompts for row in _rows(tokens, name, tokenizers)]
        missing = {key: row for row in wanted if (key := (name, row.tobytes())) not in cache}
        if missing:
            with use(runners[name]):
                for key, row in missing.items():
                    outputs = runners[name]({"input_ids": row[None]})
                    check_outputs(name, outputs)
                    cache[key] = outputs
    return [_embeds(tokenizers, tokens, cache) for tokens in prompts]


def encode_prompts(
    runners: Mapping[str, Runner],
    tokenizers: Mapping[str, Tokenizer],
    prompt: str,
    prompt_2: str | None = None,
    negative_prompt: str | None = None,
    negative_prompt_2: str | None = None,
    *,
    text_encoders: Sequence[str] = BASE_ENCODERS,
    force_zeros_for_empty_prompt: bool = True,
    guidance: bool = True,
    cache: Cache | None = None,
    use: Callable[[Runner], AbstractContextManager[object]] = nullcontext,
) -> tuple[PromptEmbeds, PromptEmbeds | None]:
    """`tokenize`, then `encode`: the embeddings of a prompt and of its negative (None without guidance)."""
    tokens = tokenize(tokenizers, prompt, prompt_2, negative_prompt, negative_prompt_2, text_encoders=text_encoders,
                      force_zeros_for_empty_prompt=force_zeros_for_empty_prompt, guidance=guidance)  # fmt: skip
    return encode(runners, tokenizers, tokens, cache=cache, use=use)


def _both(tokenizers: Mapping[str, Tokenizer], names: Sequence[str], text: str, text_2: str | None) -> list[Chunks]:
    texts = [text, *[text_2 or text] * (len(names) - 1)]
    return [tokenizers[name].chunks(parse_prompt(t)) for name, t in zip(names, texts, strict=True)]


def _pad(tokenizer: Tokenizer, chunks: Chunks, rows: int) -> Chunks:
    filler = tokenizer.empty(rows - len(chunks.ids))
    return Chunks(
        ids=np.concatenate([chunks.ids, filler.ids]), weights=np.concatenate([chunks.weights, filler.weights])
    )


def _rows(tokens: PromptTokens, name: str, tokenizers: Mapping[str, Tokenizer]) -> list[np.ndarray]:
    """The chunks that an encoder must see for a prompt, with the empty one where weights start from it."""
    if name not in tokens.text_encoders:
        return []
    index = tokens.text_encoders.index(name)
    sides = [side[index] for side in (tokens.positive, tokens.negative) if side is not None]
    empty = [tokenizers[name].empty(1)] if any((side.weights != 1).any() for side in sides) else []
    return [row for chunks in (*sides, *empty) for row in chunks.ids]


def _embeds(
    tokenizers: Mapping[str, Tokenizer], tokens: PromptTokens, cache: Cache
) -> tuple[PromptEmbeds, PromptEmbeds | None]:
    positive = _assemble(tokenizers, tokens.text_encoders, tokens.positive, cache)
    if tokens.zeros:
        return positive, PromptEmbeds(
            prompt_embeds=np.zeros_like(positive.prompt_embeds),
            pooled_prompt_embeds=np.zeros_like(positive.pooled_prompt_embeds),
        )
    if tokens.negative is None:
        return positive, None
    return positive, _assemble(tokenizers, tokens.text_encoders, tokens.negative, cache)


def _assemble(
    tokenizers: Mapping[str, Tokenizer], names: Sequence[str], side: Sequence[Chunks], cache: Cache
) -> PromptEmbeds:
    hidden = []
    for name, chunks in zip(names, side, strict=True):
        states = np.concatenate([cache[name, row.tobytes()]["hidden_states"] for row in chunks.ids])
        weights = chunks.weights[..., None]
        if (weights != 1).any():
            empty = cache[name, tokenizers[name].empty(1).ids[0].tobytes()]["hidden_states"]
            states = np.where(weights == 1, states, empty + weights * (states - empty))
        hidden.append(states.reshape(1, -1, states.shape[-1]))
    # The pooled state is one vector: the first chunk's, which is all there is of a short prompt.
    pooled = cache[names[-1], side[-1].ids[0].tobytes()]["pooled"]
    return PromptEmbeds(prompt_embeds=np.concatenate(hidden, axis=-1), pooled_prompt_embeds=pooled)
