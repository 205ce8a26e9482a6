"""The texts of a call, one row a prompt: alone or as lists, literal, or templates that chance makes prompts of."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import RequestError
from .dynamic import Dynamic
from .limits import LIMITS, listed
from .request import GenerationRequest, Prompt
from .texts import Texts, checked_text

_NAMES = ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2")


def count_prompts(prompt: object) -> int:
    """How many prompts a call has. Raises `RequestError`."""
    count = 1 if isinstance(prompt, str) else len(listed("prompt", prompt))
    if not 1 <= count <= LIMITS["pictures in all"][1]:
        raise RequestError(f"prompt is a list of {count} texts; give 1 to {LIMITS['pictures in all'][1]:g}")
    return count


def read_prompts(request: GenerationRequest, texts: Texts) -> tuple[Prompt, ...]:
    """Every prompt of a call, read. Raises `RequestError`."""
    return tuple(_prompt(texts, row) for row in _rows(request))


def read_templates(
    request: GenerationRequest, texts: Texts, dynamic: Dynamic, seeds: Sequence[int | None], per_prompt: int
) -> tuple[Prompt, ...]:
    """The same for templates: a prompt for each picture, by the picture's seed (a drawn one where it has none)."""
    rows, found = _rows(request), []
    for index, seed in enumerate(seeds):
        row = rows[index // per_prompt]
        seed = secrets.randbits(32) if seed is None else seed
        made = {
            name: None if text is None else dynamic.expand(checked_text(name, text), seed) for name, text in row.items()
        }
        found.append(
            replace(
                _prompt(texts, made),
                template=row["prompt"] if made["prompt"] != row["prompt"] else None,
                negative_template=row["negative_prompt"] if made["negative_prompt"] != row["negative_prompt"] else None,
            )
        )
    return tuple(found)


def _prompt(texts: Texts, row: Mapping[str, Any]) -> Prompt:
    return Prompt(
        prompt=texts.text("prompt", row["prompt"]),
        prompt_2=texts.optional("prompt_2", row["prompt_2"]),
        negative_prompt=texts.optional("negative_prompt", row["negative_prompt"]),
        negative_prompt_2=texts.optional("negative_prompt_2", row["negative_prompt_2"]),
    )


def _rows(request: GenerationRequest) -> list[dict[str, Any]]:
    """Keyword → text, prompt by prompt."""
    count = count_prompts(request.prompt)
    columns = [_column(name, getattr(request, name), count) for name in _NAMES]
    return [dict(zip(_NAMES, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(name: str, value: object, count: int) -> list[Any]:
    """One entry a prompt: a list as it is, anything else for all of them."""
    texts = [value] * count if value is None or isinstance(value, str) else listed(name, value)
    if len(texts) != count:
        raise RequestError(
            f"{name} is a list of {len(texts)} texts for {count} prompts; give one for each, or a single text"
        )
    return texts
