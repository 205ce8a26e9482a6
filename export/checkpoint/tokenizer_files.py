"""A CLIP tokenizer's files in one canonical form, whatever wrote them, so that equal tokenizers have equal bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...engine.architecture import TextEncoderArchitecture
from ...engine.errors import IncompatibleError, IntegrityError
from .configuration import read_json, shown

TOGETHER = "give those that belong together"
LEGACY_END_OF_TEXT = 2
"""What old configurations say of the end, whatever it is; the encoder then looks for the largest token."""
START, END = "<|startoftext|>", "<|endoftext|>"
LEAST_TOKENS, MOST_TOKENS = 3, 77
"""A prompt's, with begin and end."""
MERGES_HEADER = "#version: 0.2"
Merge = tuple[str, str]


def read_tokenizer(folder: Path, merges: list[Merge] | None = None) -> dict[str, bytes]:
    """vocab.json, merges.txt and tokenizer_config.json of the CLIP tokenizer in `folder`.

    The vocabulary comes from vocab.json and merges.txt, or else from tokenizer.json; a folder with neither, as the
    bundled ones are, gets the one that `merges` gives. `IntegrityError` when a file is missing or unsound,
    `IncompatibleError` when it is no CLIP tokenizer.
    """
    config = read_json(folder / "tokenizer_config.json")
    if not str(config.get("tokenizer_class", "CLIPTokenizer")).startswith("CLIPTokenizer"):
        raise IncompatibleError(
            f"{folder} holds a {shown(config['tokenizer_class'])}; SDXL needs a CLIPTokenizer: check the folder."
        )
    special = folder / "special_tokens_map.json"
    config = {**(read_json(special) if special.is_file() else {}), **config}
    if merges is not None:
        vocabulary = clip_vocabulary(merges)
    else:
        vocabulary, merges = _read_vocabulary(folder)
    tokens = {f"{key}_token": _text(config.get(f"{key}_token", END)) for key in ("eos", "unk", "pad")}
    tokens["bos_token"] = _text(config.get("bos_token", START))
    for key, token in tokens.items():
        if token not in vocabulary:
            raise IntegrityError(f"{folder}: {key} is {token[:80]!r}, which is not in the vocabulary; fetch it again.")
    length = config.get("model_max_length", MOST_TOKENS)
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= LEAST_TOKENS:
        raise IntegrityError(
            f"{folder}: model_max_length is {shown(length)}; it must be {LEAST_TOKENS} to {MOST_TOKENS}, the tokens "
            "of a prompt; fetch it again."
        )
    canonical = {
        **tokens,
        "model_max_length": int(min(length, MOST_TOKENS)),  # transformers writes 10**30 for no limit
        "tokenizer_class": "CLIPTokenizer",
    }
    return {
        "vocab.json": _json(dict(sorted(vocabulary.items(), key=lambda item: item[1]))),
        "merges.txt": "\n".join([MERGES_HEADER, *(" ".join(pair) for pair in merges), ""]).encode(),
        "tokenizer_config.json": _json(dict(sorted(canonical.items()))),
    }


def hold_to_encoder(files: Mapping[str, bytes], encoder: TextEncoderArchitecture, folder: Path) -> None:
    """`IncompatibleError` for a tokenizer (in canonical form) whose tokens are not those of `encoder`."""
    vocabulary, config = json.loads(files["vocab.json"]), json.loads(files["tokenizer_config.json"])
    if len(vocabulary) > encoder.vocab_size:
        raise IncompatibleError(
            f"{folder} has {len(vocabulary)} tokens, its text encoder {encoder.vocab_size}; {TOGETHER}"
        )
    if config["model_max_length"] != encoder.max_position_embeddings:
        raise IncompatibleError(
            f"{folder} makes prompts of {config['model_max_length']} tokens, its text encoder takes "
            f"{encoder.max_position_embeddings}; {TOGETHER}"
        )
    end = vocabulary[config["eos_token"]]
    if encoder.pooled and encoder.eos_token_id not in (end, LEGACY_END_OF_TEXT):
        raise IncompatibleError(
            f"{folder} ends prompts with token {end}, its text encoder looks for {encoder.eos_token_id}; {TOGETHER}"
        )


def clip_vocabulary(merges: list[Merge]) -> dict[str, int]:
    """OpenAI's order: all byte letters, the same at a word's end, one token per merge, start and end of text.

    Source: openai/CLIP, simple_tokenizer.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(code) for code in (*printable, *range(256, 512 - len(printable)))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}


def parse_merges(text: str) -> list[Merge]:
    """The pairs of a merges.txt, one a line after the version line; `ValueError` when a line is no pair."""
    merges = []
    for line in text.split("\n"):
        if line.strip() and not line.startswith("#version"):
            left, right = line.split(" ")
            merges.append((left, right))
    return merges


def _read_vocabulary(folder: Path) -> tuple[dict[str, int], list[Merge]]:
    """The vocabulary and merges of a folder, from the two plain files or from tokenizer.json."""
    plain = folder / "vocab.json"
    source = plain if plain.is_file() or not (folder / "tokenizer.json").is_file() else folder / "tokenizer.json"
    data = read_json(source)
    try:
        if source == plain:
            source = folder / "merges.txt"
            if not source.is_file():
                raise IntegrityError(f"{source} is missing; fetch the checkpoint again.")
            vocabulary, merges = data, parse_merges(source.read_text(encoding="utf-8"))
        else:
            model = data["model"]
            pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
            merges = [(str(left), str(right)) for left, right in pairs]
            vocabulary = {**model["vocab"], **{t["content"]: t["id"] for t in data.get("added_tokens", [])}}
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{source} is not a CLIP vocabulary; fetch the checkpoint again.") from error
    ids = list(vocabulary.values())
    if not all(type(number) is int for number in ids) or sorted(ids) != list(range(len(ids))):
        raise IntegrityError(f"{source}: the token ids are not 0 to {len(vocabulary) - 1}; fetch the checkpoint again.")
    return vocabulary, merges


def _text(token: Any) -> str:
    """A special token's text, which transformers also writes as an object."""
    return str(token["content"] if isinstance(token, Mapping) and "content" in token else token)


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
