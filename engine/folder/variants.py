"""Files of a component of which one is loaded: the same network, compiled for other GPU generations.

A compiler makes one program for all generations that share a file, the least common one. Where that costs some of them
too much, or one lacks what a recipe asks for, a component has several files. The manifest says which is for which, only
the one for the GPU at hand is hashed and loaded, and `verify` hashes all.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import IncompatibleError, IntegrityError
from .files import WORDS_FILE, FileEntry

if TYPE_CHECKING:
    from .manifest import ComponentEntry

Architectures = Mapping[str, Sequence[str]]
"""Name of a file → the GPU generations that it is for."""


def loaded_bytes(files: Sequence[FileEntry], architectures: Architectures, others: Collection[str] = ()) -> int:
    """Bytes of what is loaded: of the files that one is chosen from, the largest; none of `others`."""
    never = {*others, WORDS_FILE}
    chosen = [file.size for file in files if file.name in architectures]
    alone = [file.size for file in files if file.name not in architectures and file.name not in never]
    return max(chosen, default=0) + sum(alone)


def only_file(entry: "ComponentEntry") -> FileEntry | None:
    """The file of a component that has one for every card, segments aside; None where one is to be chosen.

    It is tried on every card: on one that it was not built for it may still run, and if not the library says so.
    """
    parts = set() if entry.streaming is None else {s.file for s in entry.streaming.segments} | {entry.streaming.program}
    whole = [file for file in entry.files if file.name not in parts]
    return whole[0] if len(whole) == 1 else None


def file_for(entry: "ComponentEntry", architecture: str) -> FileEntry | None:
    """The file for a GPU generation (`sm89`); None if there is none for it."""
    if (only := only_file(entry)) is not None:
        return only
    return next((file for file in entry.files if architecture in entry.architectures.get(file.name, ())), None)


def chosen_file(entry: "ComponentEntry", architecture: str, *, folder: Path, gpu: str) -> FileEntry:
    """The file for a GPU generation. Raises `IncompatibleError` that names the card and those that there are."""
    found = file_for(entry, architecture)
    if found is not None:
        return found
    if not entry.architectures:
        raise IntegrityError(
            f"{folder} has {len(entry.files)} files in the place of one engine; build the engine again with "
            "`pocketxl build`"
        )
    there = ", ".join(name for names in entry.architectures.values() for name in names)
    raise IncompatibleError(
        f"{folder} was built for {there}, and this {gpu} is {architecture}; build it with --target rtx-{architecture}, "
        "or with --target cpu where there is none"
    )
