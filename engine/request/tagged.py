"""A request whose prompts name LoRAs: what its LoRAs are, and its prompts without the tags."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import RequestError
from .limits import show
from .lora_tags import Weight, loras_of, tags_in
from .loras import LoraUse, lora_uses
from .request import GenerationRequest, Prompt


def without_tags(request: GenerationRequest) -> tuple[GenerationRequest, tuple[LoraUse, ...]]:
    """The request with its prompts cleaned of LoRA tags, and the LoRAs of its option and of its tags.

    Without a folder, or with `literal`, tags are text. Raises `RequestError`, for prompts of different LoRAs too.
    """
    given = lora_uses(request.loras)
    if request.lora_folder is None or request.literal is True:
        return request, given
    if not isinstance(request.lora_folder, str | os.PathLike):
        raise RequestError(f"lora_folder is {show(request.lora_folder)}; give the folder that your LoRAs lie in")
    folder = Path(os.fsdecode(request.lora_folder))
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    if not isinstance(prompts, Sequence) or not all(isinstance(prompt, str) for prompt in prompts):
        return request, given  # told where prompts are checked
    found = [loras_of(prompt, folder) for prompt in prompts]
    asked: list[dict[str, Weight]] = [files for _, files in found]
    if any(files != asked[0] for files in asked[1:]):
        raise RequestError("the prompts of one call name different LoRAs; give those that differ in calls of their own")
    words: Any = found[0][0] if isinstance(request.prompt, str) else [text for text, _ in found]
    tagged = tuple(replace(use, tagged=True) for use in lora_uses(asked[0] if asked else None))
    return replace(request, prompt=words), (*given, *tagged)


def with_tags(prompts: tuple[Prompt, ...], request: GenerationRequest) -> tuple[Prompt, ...]:
    """The prompts as they were given, tags and all: what is written into pictures. `request`: with its tags.

    Behind prompts that chance has made of a template, the tags alone are put back.
    """
    if request.lora_folder is None or request.literal:
        return prompts
    given = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    if not request.dynamic and request.wildcard_folder is None and len(given) == len(prompts):
        return tuple(_recorded(prompt, text) for prompt, text in zip(prompts, given, strict=True))
    tags = tags_in(given[0]) if given else ""
    return tuple(_recorded(prompt, f"{prompt.prompt.given}{tags}") for prompt in prompts)


def _recorded(prompt: Prompt, text: str) -> Prompt:
    return replace(prompt, prompt=replace(prompt.prompt, given=text))
