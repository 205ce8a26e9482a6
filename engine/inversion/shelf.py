"""The words that a folder has embeddings for, and where a text holds them.

AUTOMATIC1111 takes the bare name, ComfyUI `embedding:name`; both are read, in any case, the longest name first. A
backslash before either makes words of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from ..architecture import Models
from ..errors import RequestError
from .read import Inversion, read_inversion

SUFFIX = ".safetensors"
MOST_FILES = 100_000
"""That are looked through in a folder."""
_WORD = re.compile(r"\w++")
_PREFIX = "embedding:"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A name in a text: from `start` (with prefix and backslash) to `end`."""

    start: int
    end: int
    path: Path | None
    """None where the prefix asks for one that is not there."""
    escaped: bool


@dataclass(kw_only=True)
class Embeddings:
    """The embeddings of one folder, for one engine; a file is read when a text first names it."""

    folder: Path
    models: Models
    _by_word: dict[str, list[tuple[str, Path]]] = field(default_factory=dict, init=False, repr=False)
    _read: dict[Path, Inversion] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise RequestError(f"embedding_folder {self.folder} is no folder; give the one that your embeddings lie in")
        inside = self.folder.resolve()
        for path in sorted(islice(self.folder.rglob(f"*{SUFFIX}"), MOST_FILES)):
            name = path.stem.lower()
            if (word := _WORD.match(name)) and path.is_file() and path.resolve().is_relative_to(inside):
                self._by_word.setdefault(word[0], []).append((name, path))
        for names in self._by_word.values():
            names.sort(key=lambda one: -len(one[0]))

    def split(self, text: str) -> list[str | Inversion]:
        """A text without weights → its words and embeddings, in order. Raises what reading a file raises.

        `RequestError` for `embedding:name` with a name that the folder does not have.
        """
        pieces: list[str | Inversion] = []
        at = 0
        for found in self._find(text):
            pieces.append(text[at : found.start])
            if found.escaped:
                pieces.append(text[found.start + 1 : found.end])
            elif found.path is None:
                raise self._unknown(text[found.start + len(_PREFIX) : found.end])
            else:
                pieces.append(self._inversion(found.path))
            at = found.end
        pieces.append(text[at:])
        joined: list[str | Inversion] = []
        for piece in pieces:
            if isinstance(piece, str) and joined and isinstance(joined[-1], str):
                joined[-1] += piece
            elif piece:
                joined.append(piece)
        return joined or [""]

    def escape(self, text: str) -> str:
        """The text with a backslash before every name: `split` makes the words of it again."""
        at, pieces = 0, []
        for found in self._find(text):
            pieces += [text[at : found.start], "\\"]
            at = found.start
        return "".join([*pieces, text[at:]])

    def _find(self, text: str) -> Iterator[Found]:
        lower, begin = text.lower(), 0
        if len(lower) != len(text):
            lower = text  # a letter whose small form is longer: names are then found as they are written
        for word in _WORD.finditer(lower):
            if word.start() < begin:
                continue
            start = word.start()
            if word[0] == _PREFIX[:-1] and lower.startswith(_PREFIX, start):
                continue  # the name behind it takes it in
            front = start - len(_PREFIX)
            prefixed = front >= begin and lower.startswith(_PREFIX, front) and not _WORD.match(lower[front - 1 : front])
            match = self._longest(lower, word)
            if match is None and not prefixed:
                continue
            name, path = match or (word[0], None)
            end = start + len(name)
            end += len(SUFFIX) if lower.startswith(SUFFIX, end) else 0
            start = front if prefixed else start
            escaped = start > begin and text[start - 1] == "\\"
            yield Found(start=start - escaped, end=end, path=path, escaped=escaped)
            begin = end

    def _longest(self, lower: str, word: re.Match[str]) -> tuple[str, Path] | None:
        for name, path in self._by_word.get(word[0], ()):
            end = word.start() + len(name)
            if lower.startswith(name, word.start()) and not (end < len(lower) and _WORD.match(lower[end])):
                return name, path
        return None

    def _inversion(self, path: Path) -> Inversion:
        if path not in self._read:
            self._read[path] = read_inversion(path, self.models)
        return self._read[path]

    def _unknown(self, name: str) -> RequestError:
        names = sorted(each for names in self._by_word.values() for each, _ in names)
        near = get_close_matches(name[:64], names, n=1)
        there = f"did you mean {near[0]}?" if near else f"it has {', '.join(names[:20]) or 'none'}"
        return RequestError(f"embedding:{name[:64]} is not in {self.folder}; {there}")


def embeddings_in(folder: object, models: Models) -> Embeddings | None:
    """The embeddings of a call's `embedding_folder`. Raises `RequestError`."""
    if folder is None:
        return None
    if not isinstance(folder, str | Path):
        raise RequestError(f"embedding_folder is {str(folder)[:64]!r}; give the path of a folder")
    return Embeddings(folder=Path(folder), models=models)
