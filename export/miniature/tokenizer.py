"""The tokenizers: CLIP-format byte-pair encoding, learned from the captions so that every name is whole words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .captions import COLOURS

_WORD_END: Final = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_MERGES: Final = 2312  # enough for every word of the whole vocabulary, which has 1,369 different ones
_WORDS: Final = "a an the to of on left right small large background and in with"


def train_merges(names: Iterable[str], limit: int = _MERGES) -> list[tuple[str, str]]:
    """Byte-pair merges from names, colours and the words of the grammar, most frequent first."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=512 + limit,
        min_frequency=1,
        initial_alphabet=_byte_characters(),
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*names, *COLOURS, _WORDS], trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [(first, second) for first, second in pairs][:limit]


def clip_vocabulary(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Token ids in CLIP's order: bytes, bytes at a word's end, merges, start, end."""
    characters = _byte_characters()
    tokens = [*characters, *(character + _WORD_END for character in characters)]
    tokens += ["".join(merge) for merge in merges]
    tokens += [_START, _END]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def write_tokenizers(names: Iterable[str], folder: Path) -> None:
    """Train and write `tokenizer/` (pads with the end token) and `tokenizer_2/` (pads with "!"), as SDXL."""
    merges = train_merges(names)
    vocabulary = clip_vocabulary(merges)
    for name, pad in (("tokenizer", _END), ("tokenizer_2", "!")):
        tokenizer = CLIPTokenizer(
            vocab=vocabulary, merges=merges, pad_token=pad, unk_token=_END, bos_token=_START, eos_token=_END,
            model_max_length=77,
        )  # fmt: skip
        tokenizer.save_pretrained(str(folder / name))


def _byte_characters() -> list[str]:
    """A printable character for each byte, in CLIP's order (OpenAI's `bytes_to_unicode`)."""
    edges = (ord("!"), ord("~") + 1, ord("\u00a1"), ord("\u00ac") + 1, ord("\u00ae"), ord("\u00ff") + 1)
    printable = [code for low, high in list(pairwise(edges))[::2] for code in range(low, high)]
    others = [code for code in range(256) if code not in printable]
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(len(others))]
