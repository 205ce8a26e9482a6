"""Captions to tokens to what the U-Nets read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ...engine.errors import IncompatibleError

LENGTH: Final = 77


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer from a diffusers-format folder.

    Raises `IncompatibleError`: the folder has no vocabulary; transformers would make an empty tokenizer of it.
    """
    if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise IncompatibleError(f"{folder} holds no tokenizer; give a folder that this recipe made")
    return CLIPTokenizer.from_pretrained(str(folder))


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids, int16, shape (captions, 77), padded as the pipelines pad."""
    rows = tokenizer(list(captions), padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]
    return torch.tensor(rows, dtype=torch.int16)


def used_length(tokens: Tensor, end: int) -> int:
    """Positions that some caption uses, its end token included."""
    return int((tokens == end).int().argmax(-1).max()) + 1


def padding_mask(batch: int, length: int) -> Tensor | None:
    """A mask that lets a shortened context stand for all 77 positions.

    Most of the 77 positions hold padding, and their states are nearly alike. While the context is cut to `length`, its
    last position counts as all those that were cut: the logarithm of their number is added to its attention score. The
    U-Net turns a mask m into a bias of -10000 (1 - m), hence the form. None when nothing was cut.
    """
    if length == LENGTH:
        return None
    mask = torch.ones(batch, length)
    mask[:, -1] += torch.tensor(float(LENGTH - length + 1)).log() / 10000
    return mask


def share_padding_positions(encoder: CLIPTextModel | CLIPTextModelWithProjection, length: int) -> None:
    """Give the positions that a shortened context never trained the embedding of the last trained one."""
    # The attribute path to the table differs between the two classes and between versions; its name does not.
    tables = [p for name, p in encoder.named_parameters() if name.endswith("position_embedding.weight")]
    with torch.no_grad():
        for table in tables:
            table[length:] = table[length - 1]


def encode_base(
    first: CLIPTextModel, second: CLIPTextModelWithProjection, tokens: Tensor, tokens_2: Tensor
) -> tuple[Tensor, Tensor]:
    """Context of the base (batch, length, both widths) and pooled vector (batch, second width)."""
    states = first(tokens, output_hidden_states=True).hidden_states[-2]
    states_2, pooled = encode_refiner(second, tokens_2)
    return torch.cat([states, states_2], -1), pooled


def encode_refiner(second: CLIPTextModelWithProjection, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Context of the refiner (batch, length, second width) and pooled vector (batch, second width)."""
    output = second(tokens, output_hidden_states=True)
    return output.hidden_states[-2], output.text_embeds
