"""Text → CLIP token ids, from the `vocab.json`, `merges.txt` and `tokenizer_config.json` of a tokenizer folder.

The ids equal those of transformers' `CLIPTokenizer` for the same files: the byte-pair encoding with `</w>` word ends of
OpenAI's CLIP (`simple_tokenizer.py`), run by the `tokenizers` library.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..architecture import tokenizer_of
from ..errors import IntegrityError
from ..folder.manifest import Manifest, checked_path
from ..install import needing
from ..request.prompt import BREAK
from ..request.request import Run
from ..stored.numbers import Floats

__all__ = ["FILES", "Chunks", "Tokenizer", "tokenizer_of"]

FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
_MAX_TOKENS = 77
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """A tokenized prompt. `ids`: (n, 77) int64, each row begin, up to 75 tokens, end, padding. `weights`: (n, 77).

    Ids below 0 stand for vectors: -1 is the row's first.
    """

    ids: np.ndarray
    weights: np.ndarray
    vectors: tuple[Floats | None, ...]
    """For each row those of its embeddings, (m, width) float32; None where it has none."""

    @property
    def key(self) -> Hashable:
        """The same for two that are equal."""
        return tuple(row.key for row in self.rows), self.weights.tobytes()

    @property
    def rows(self) -> list["Row"]:
        """What an encoder is given, row by row."""
        return [Row(ids=ids, vectors=own) for ids, own in zip(self.ids, self.vectors, strict=True)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    """One chunk: `ids` (77,) int64, and the vectors that those below 0 stand for."""

    ids: np.ndarray
    vectors: Floats | None

    @property
    def key(self) -> bytes:
        """The same for two that are equal."""
        return self.ids.tobytes() + (b"" if self.vectors is None else self.vectors.tobytes())


class Tokenizer:
    """One CLIP tokenizer; cheap to call, safe to share between threads."""

    def __init__(self, files: Mapping[str, bytes], *, source: str = "tokenizer") -> None:
        """Build from the files' contents; `source` names them in errors.

        Raises `IntegrityError` if a file is missing or is not what it should be.
        """
        with needing("tokenizers", "reading prompts"):
            from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

        vocabulary, merges, config = _contents(files, source)
        special = {name: _content(config.get(f"{name}_token", "<|endoftext|>")) for name in ("eos", "unk", "pad")}
        special["bos"] = _content(config.get("bos_token", "<|startoftext|>"))
        if lacking := sorted({token for token in special.values() if token not in vocabulary}):
            raise IntegrityError(f"{source}: special tokens {lacking} are not in vocab.json")
        try:
            model = models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=special["unk"])
            bpe = Tokenizer(model)
            bpe.normalizer = normalizers.Sequence(
                [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
            )
            bpe.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            )
            # `!` pads SDXL's second tokenizer, so there it is a special token wherever it stands: id 0, not `!</w>`.
            bpe.add_special_tokens([AddedToken(**token) for token in _added_tokens(config, special)])
        except Exception as error:  # the library raises bare Exception for files that do not fit
            raise IntegrityError(f"{source}: the tokenizer's files do not fit together ({error})") from error
        self._bpe = bpe
        self.bos, self.eos, self.pad = (vocabulary[special[name]] for name in ("bos", "eos", "pad"))
        limit = config.get("model_max_length", _MAX_TOKENS)
        self.max_tokens = int(limit) if isinstance(limit, int) and 3 <= limit <= _MAX_TOKENS else _MAX_TOKENS
        """Length of a chunk with begin and end: 77."""

    def ids(self, text: str) -> list[int]:
        """Token ids without begin, end and padding."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def chunks(self, pieces: Sequence[Run], encoder: str = "") -> Chunks:
        """Weighted pieces of text (of `parse_prompt`) → rows of begin, 75 tokens, end; at least one row.

        `BREAK` ends a row, be it empty; one at the end begins no other. Embeddings have the vectors that they have for
        `encoder`; one whose vectors a row has no room for begins the next.
        """
        rows: list[_Filling] = [_Filling()]
        for piece in pieces:
            what, weight = piece
            if piece == BREAK:
                rows.append(_Filling())
            elif isinstance(what, str):
                for token in self.ids(what):
                    self._room(rows, 1).tokens.append((token, weight))
            else:
                row = self._room(rows, what.count)
                for vector in what.vectors[encoder]:
                    row.vectors.append(vector)
                    row.tokens.append((-len(row.vectors), weight))
        if len(rows) > 1 and not rows[-1].tokens:
            rows.pop()
        chunks = self.empty(len(rows))
        for index, row in enumerate(rows):
            end = len(row.tokens) + 1
            chunks.ids[index, 1:end] = [token for token, _ in row.tokens]
            chunks.ids[index, end] = self.eos
            chunks.ids[index, end + 1 :] = self.pad
            chunks.weights[index, 1:end] = [weight for _, weight in row.tokens]
        return replace(chunks, vectors=tuple(np.stack(row.vectors) if row.vectors else None for row in rows))

    def empty(self, rows: int) -> Chunks:
        """`rows` chunks of an empty prompt."""
        ids = np.full((rows, self.max_tokens), self.pad, np.int64)
        ids[:, 0], ids[:, 1] = self.bos, self.eos
        return Chunks(ids=ids, weights=np.ones(ids.shape, np.float32), vectors=(None,) * rows)

    def _room(self, rows: "list[_Filling]", count: int) -> "_Filling":
        """The row that the next tokens go to."""
        if len(rows[-1].tokens) + count > self.max_tokens - 2:
            rows.append(_Filling())
        return rows[-1]


@dataclass(eq=False)
class _Filling:
    """A row that is being filled: tokens with their weights, and its vectors."""

    tokens: list[tuple[int, float]] = field(default_factory=list)
    vectors: list[Floats] = field(default_factory=list)


def open_tokenizers(folder: Path, manifest: Manifest) -> dict[str, Tokenizer]:
    """Text encoder → its tokenizer, from an engine folder. Raises `IntegrityError` and `IncompatibleError`."""
    found = {}
    for encoder in manifest.models.text_encoders:
        name = tokenizer_of(encoder)
        paths = [checked_path(folder, file) for file in manifest.tokenizers[name]]
        found[encoder] = Tokenizer({path.name: path.read_bytes() for path in paths}, source=str(folder / name))
    return found


def _contents(files: Mapping[str, bytes], source: str) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, Any]]:
    if missing := [name for name in FILES if name not in files]:
        raise IntegrityError(f"{source}: {', '.join(missing)} missing; a CLIP tokenizer needs {', '.join(FILES)}")
    try:
        vocabulary = json.loads(files["vocab.json"])
        config = json.loads(files["tokenizer_config.json"])
        # Lines end at "\n" alone: the vocabulary has characters that str.splitlines takes for line ends.
        lines = files["merges.txt"].decode("utf-8").split("\n")
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{source}: a tokenizer file is damaged ({error})") from error
    if not isinstance(config, dict) or not isinstance(vocabulary, dict):
        raise IntegrityError(f"{source}: vocab.json and tokenizer_config.json must each hold one JSON object")
    if not all(isinstance(i, int) and 0 <= i < 1 << 31 for i in vocabulary.values()):
        raise IntegrityError(f"{source}: vocab.json must map tokens to ids")
    pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(merges) != len(pairs):
        raise IntegrityError(f"{source}: merges.txt must have two tokens a line")
    return vocabulary, merges, config


def _content(token: Any) -> str:
    """A special token is a string, or a dictionary with its flags (older files)."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _added_tokens(config: Mapping[str, Any], special: Mapping[str, str]) -> list[dict[str, Any]]:
    """The special tokens with their flags, in the order in which transformers adds them."""
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    declared = config.get("added_tokens_decoder")
    rows = list(declared.values()) if isinstance(declared, dict) else []
    rows += [config.get(f"{name}_token", special[name]) for name in ("bos", "eos", "unk", "pad")]
    tokens: dict[str, dict[str, Any]] = {}
    for row in rows:
        own = {flag: bool(row[flag]) for flag in flags if flag in row} if isinstance(row, dict) else {}
        tokens.setdefault(_content(row), {"content": _content(row), "special": True, "normalized": False, **own})
    return list(tokens.values())
