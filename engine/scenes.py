"""Prompts that change on their way: which text stands at which evaluation of a model.

Each text is encoded and conditioned once, as a prompt of its own would be, so that a step sees what the plain prompt of
that step is. Steps are the sampler's, counted over base and refiner together: a step with two evaluations has one text,
and the refiner goes on where the base ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from .architecture import ModelArchitecture
from .request.embeds import Sides
from .request.request import Prompt
from .request.texts import MOST_TEXTS, too_many_texts
from .sampling.samplers.base import Schedule
from .text.encode import PromptTokens, tokenize
from .text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class GivenText:
    """Embeddings that the caller gave in place of a text."""

    sides: Sides

    @property
    def guided(self) -> bool:
        """Whether a negative stands beside the prompt."""
        return self.sides[1] is not None

    @property
    def tokens(self) -> int:
        """Length of the prompt's embeddings."""
        return int(self.sides[0].prompt_embeds.shape[1])


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """The texts of one model's part of the loop."""

    tokens: tuple[PromptTokens | GivenText, ...]
    """Of all prompts, each prompt's different ones in the order in which they come."""
    order: tuple[tuple[int, ...], ...]
    """(prompts, evaluations of the part) which of `tokens` stands there."""

    @classmethod
    def given(cls, prompts: Sequence[Sides], part: Schedule) -> Self:
        """Those of a caller's embeddings, which stay the same throughout."""
        order = tuple((index,) * len(part.evaluations) for index in range(len(prompts)))
        return cls(tokens=tuple(GivenText(sides=sides) for sides in prompts), order=order)

    @classmethod
    def of(
        cls,
        prompts: Sequence[Prompt],
        part: Schedule,
        model: ModelArchitecture,
        tokenizers: Mapping[str, Tokenizer],
        guidance_scale: float,
    ) -> Self:
        """Tokenize what of the prompts a part of the schedule meets. Raises `RequestError` for too many texts."""
        guidance = model.guided(guidance_scale)
        steps = [1 + evaluation // part.sampler.calls.per_step for evaluation in part.evaluations]
        tokens: list[PromptTokens] = []
        order = []
        for prompt in prompts:
            if not guidance:
                prompt = replace(prompt, negative_prompt=None, negative_prompt_2=None)
            at = {step: prompt.at(step) for step in dict.fromkeys(steps)}
            # Two texts may be one for a model: a refiner does not read the second.
            own: dict[object, PromptTokens] = {}
            keys = {}
            for text in dict.fromkeys(at.values()):
                read = tokenize(tokenizers, text, model, guidance=guidance)
                keys[text] = read.key
                own.setdefault(read.key, read)
            if len(own) > MOST_TEXTS:
                raise too_many_texts("a prompt with its negative", len(own))
            places = {key: len(tokens) + index for index, key in enumerate(own)}
            order.append(tuple(places[keys[at[step]]] for step in steps))
            tokens += own.values()
        return cls(tokens=tuple(tokens), order=tuple(order))
