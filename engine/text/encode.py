"""Prompts → what the U-Nets see of them: hidden states of both text encoders side by side, and the pooled state.

Prompts up to 75 tokens give what diffusers' `encode_prompt` gives. Longer ones are cut into chunks of 75 that are
encoded one by one and joined (AUTOMATIC1111's way); prompt and negative prompt get the same number of chunks.

Weights pull a token's hidden state away from (or towards) the state that an empty prompt has at its place:
`empty + weight * (state - empty)`, as ComfyUI does (`comfy/sd1_clip.py`). AUTOMATIC1111 multiplies and then restores
the mean of all states; a mean near zero makes that correction arbitrary, and one word's weight changes all others. Here
other tokens keep their states exactly, weight 0 is the empty prompt's state, and negative weights mean something.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from ..architecture import ModelArchitecture
from ..errors import RequestError
from ..inversion.read import TOKEN_EMBEDDINGS
from ..request.embeds import PromptEmbeds, Sides
from ..request.request import Prompt, Text
from ..runners.base import Runner, call, check_outputs
from .cache import EncodedChunks, Key, Outputs
from .tokenizer import Chunks, Row, Tokenizer

MAX_CHUNKS = 16
"""1,200 tokens; the memory of the keys and values grows with every chunk."""
NOT_POOLED = np.empty((1, 0), np.float32)
NOTHING = Text(given="", runs=(("", 1.0),))
Encoded = dict[Key, Outputs]


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
    def guided(self) -> bool:
        """Whether a negative stands beside the prompt."""
        return self.zeros or self.negative is not None

    @property
    def tokens(self) -> int:
        """Length of the prompt's embeddings."""
        return int(self.positive[0].ids.size)

    @property
    def key(self) -> Hashable:
        """The same for two that are equal."""
        return self.text_encoders, self.zeros, tuple(chunks.key for chunks in (*self.positive, *(self.negative or ())))


def tokenize(
    tokenizers: Mapping[str, Tokenizer], prompt: Prompt, model: ModelArchitecture, *, guidance: bool
) -> PromptTokens:
    """Tokenize a prompt and its negative for one model. `tokenizers`: by the name of the encoder that each one serves.

    The rules are diffusers': the first encoder of the model gets `prompt`, the second `prompt_2` or else `prompt` (so a
    refiner, whose only encoder is the second, gets `prompt`); zeros stand for the negative only if `negative_prompt` is
    None and the model forces zeros; an empty string is encoded. Without `guidance` there is no negative.
    Raises `RequestError` for more than `MAX_CHUNKS` chunks.
    """
    encoders = model.text_encoders
    zeros = guidance and prompt.negative_prompt is None and model.force_zeros_for_empty_prompt
    positive = _chunks(tokenizers, encoders, prompt.prompt, prompt.prompt_2)
    negative = []
    if guidance and not zeros:
        negative = _chunks(tokenizers, encoders, prompt.negative_prompt or NOTHING, prompt.negative_prompt_2)
    rows = max(len(chunks.ids) for chunks in (*positive, *negative))
    if rows > MAX_CHUNKS:
        raise RequestError(
            f"the prompt is {rows} chunks of 75 tokens long, at most {MAX_CHUNKS} are allowed; shorten it"
        )
    padded = [
        _pad(tokenizers[name], chunks, rows)
        for name, chunks in zip((*encoders, *encoders), (*positive, *negative), strict=False)
    ]
    count = len(positive)
    return PromptTokens(
        text_encoders=encoders,
        positive=tuple(padded[:count]),
        negative=tuple(padded[count:]) or None,
        zeros=zeros,
    )


def encode(
    runners: Mapping[str, Runner],
    tokenizers: Mapping[str, Tokenizer],
    prompts: Sequence[PromptTokens],
    *,
    use: Callable[[Runner], AbstractContextManager[object]] = nullcontext,
    cache: EncodedChunks | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Sides]:
    """Encode tokenized prompts, of base and refiner alike, and their negatives (None without guidance).

    Encoders run one after another, each inside one `use(runner)`, so `use=Loaded` loads each encoder once and keeps one
    in memory at a time. Equal chunks are encoded once, and each alone: a result cannot depend on what else is encoded
    with it, even where a quantized encoder takes its scales from the whole batch. What `cache` has is not encoded; an
    encoder that has nothing to do is not used. `advance` is called after each encoder.
    Raises `NumericError` for NaN or Inf in an encoder's outputs.
    """
    cache = cache or EncodedChunks(0)
    encoded: Encoded = {}
    made: dict[Hashable, PromptEmbeds] = {}
    for name in dict.fromkeys(name for tokens in prompts for name in tokens.text_encoders):
        rows = {row.key: row for tokens in prompts for row in _rows(tokens, name, tokenizers)}
        found = {(name, key): outputs for key in rows if (outputs := cache.get((name, key))) is not None}
        encoded |= found
        missing = {key: row for key, row in rows.items() if (name, key) not in found}
        if missing:
            with use(runners[name]):
                for key, row in missing.items():
                    own = {} if row.vectors is None else {TOKEN_EMBEDDINGS: row.vectors}
                    outputs = call(runners[name], {"input_ids": row.ids[None], **own})
                    check_outputs(name, outputs)
                    encoded[name, key] = outputs
                    cache.keep((name, key), outputs)
        advance()
    return [_embeds(tokenizers, tokens, encoded, made) for tokens in prompts]


def _chunks(
    tokenizers: Mapping[str, Tokenizer], encoders: Sequence[str], text: Text, text_2: Text | None
) -> list[Chunks]:
    # An empty second text counts as none, as in diffusers.
    second = text_2 if text_2 is not None and text_2.given else text
    texts = [text, *[second] * (len(encoders) - 1)]
    return [tokenizers[name].chunks(t.runs, name) for name, t in zip(encoders, texts, strict=True)]


def _pad(tokenizer: Tokenizer, chunks: Chunks, rows: int) -> Chunks:
    filler = tokenizer.empty(rows - len(chunks.ids))
    return Chunks(
        ids=np.concatenate([chunks.ids, filler.ids]),
        weights=np.concatenate([chunks.weights, filler.weights]),
        vectors=(*chunks.vectors, *filler.vectors),
    )


def _rows(tokens: PromptTokens, name: str, tokenizers: Mapping[str, Tokenizer]) -> list[Row]:
    """The chunks that an encoder must see for a prompt, with the empty one where weights start from it."""
    if name not in tokens.text_encoders:
        return []
    index = tokens.text_encoders.index(name)
    sides = [side[index] for side in (tokens.positive, tokens.negative) if side is not None]
    empty = [tokenizers[name].empty(1)] if any((side.weights != 1).any() for side in sides) else []
    return [row for chunks in (*sides, *empty) for row in chunks.rows]


def _embeds(
    tokenizers: Mapping[str, Tokenizer], tokens: PromptTokens, encoded: Encoded, made: dict[Hashable, PromptEmbeds]
) -> Sides:
    """Equal sides are one object: what is made of them further on is then made once."""

    def assembled(side: Sequence[Chunks]) -> PromptEmbeds:
        key = tokens.text_encoders, tuple(chunks.key for chunks in side)
        if key not in made:
            made[key] = _assemble(tokenizers, tokens.text_encoders, side, encoded)
        return made[key]

    positive = assembled(tokens.positive)
    if tokens.zeros:
        zeros = PromptEmbeds(
            prompt_embeds=np.zeros_like(positive.prompt_embeds),
            pooled_prompt_embeds=np.zeros_like(positive.pooled_prompt_embeds),
        )
        return positive, made.setdefault((tokens.text_encoders, positive.prompt_embeds.shape), zeros)
    if tokens.negative is None:
        return positive, None
    return positive, assembled(tokens.negative)


def _assemble(
    tokenizers: Mapping[str, Tokenizer], names: Sequence[str], side: Sequence[Chunks], encoded: Encoded
) -> PromptEmbeds:
    hidden = []
    for name, chunks in zip(names, side, strict=True):
        states = np.concatenate([encoded[name, row.key]["hidden_states"] for row in chunks.rows])
        weights = chunks.weights[..., None]
        if (weights != 1).any():
            empty = encoded[name, tokenizers[name].empty(1).rows[0].key]["hidden_states"]
            states = np.where(weights == 1, states, empty + weights * (states - empty))
        hidden.append(states.reshape(1, -1, states.shape[-1]))
    # The pooled state is one vector: the first chunk's, which is all there is of a short prompt.
    pooled = encoded[names[-1], side[-1].rows[0].key].get("pooled", NOT_POOLED)
    return PromptEmbeds(prompt_embeds=np.concatenate(hidden, axis=-1), pooled_prompt_embeds=pooled)
