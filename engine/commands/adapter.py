"""`pocketxl inspect FILE.safetensors`: what an adapter is, for which model, its ranks, words and hashes."""

from collections.abc import Iterator
from pathlib import Path

from ..adapters.hashes import hash_file, short_hash
from ..adapters.notes import Notes, read_notes
from ..adapters.read import open_adapter
from .base import emit, say


def show_adapter(path: Path, as_json: bool) -> None:
    """Say it. Raises `IntegrityError` for a damaged file."""
    header = open_adapter(path)
    notes, hashes, size = read_notes(header), hash_file(path, header), path.stat().st_size
    short = short_hash(header.metadata, lambda: hashes.tensors)
    if as_json:
        emit(
            "adapter", path=str(path), kinds=dict(notes.kinds), family=notes.family, instead=notes.instead,
            layers=dict(notes.places), ranks={str(rank): count for rank, count in notes.ranks.items()},
            dtypes=list(notes.dtypes), title=notes.title, model=notes.model, words=list(notes.words),
            other_keys=notes.others, size_bytes=size, sha256=hashes.sha256, autov2=hashes.autov2, lora_hash=short,
            metadata=dict(header.metadata),
        )  # fmt: skip
        return
    for line in _lines(path, notes, size):
        say(line)
    say(f"sha256 {hashes.sha256}")
    say(f"AutoV2 {hashes.autov2}, hash in pictures {short}")


def _lines(path: Path, notes: Notes, size: int) -> Iterator[str]:
    if not notes.kinds:
        yield f"{path}: {notes.instead or 'no adapter of a kind that is known here'}, {_size(size)}"
        return
    kinds = " and ".join(notes.kinds)
    yield f"{path}: {kinds} for {notes.family or 'an unknown model'}, {_size(size)}, {', '.join(notes.dtypes)}"
    if notes.title:
        yield f"title {notes.title}"
    if notes.model:
        yield f"trained on {notes.model}"
    layers = ", ".join(f"{count} of the {place}" for place, count in notes.places.items())
    ranks = ", ".join(f"{rank} ({count} layers)" if len(notes.ranks) > 1 else f"{rank}" for rank, count in
                      notes.ranks.items())  # fmt: skip
    yield f"layers {layers}" + (f"; rank {ranks}" if ranks else "")
    if notes.words:
        yield f"words {', '.join(notes.words)}"
    if notes.others:
        yield f"{notes.others} keys are of no kind that is known here"


def _size(count: int) -> str:
    return f"{count / 1024:.0f} KiB" if count < 10 << 20 else f"{count / (1 << 20):.0f} MiB"
