"""An engine folder appears whole or not at all, and a build that was killed goes on where it stopped.

Everything is made in one hidden sibling of the destination, whose name is stable so that the next build finds it:

    .{name}.building/lock         held while a builder lives
    .{name}.building/state.json   finished components: key, files with hashes, facts
    .{name}.building/reference/   what the unquantized run has left so far
    .{name}.building/engine/      the folder to be
    .{name}.building/aside/       what a component needs while it is made, and the engine does not
    .{name}.building/replaced/    the old engine, for the instant between two renames where they cannot be exchanged
"""

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...engine.errors import IntegrityError, PocketXLError, StorageError
from ...engine.folder.durable import sync, write_durably
from ...engine.folder.files import FileEntry, entry_of, hash_file, lexical_path
from ...engine.folder.manifest import FILE_NAME, Manifest, read_manifest
from ...engine.folder.schema import decode, encode
from .keys import explain_miss
from .lock import locked
from .storage import check_space, storage_errors

# What lies at the top of an engine folder. A folder with anything else in it is somebody's, and is never replaced.
ENGINE_NAMES = frozenset(
    {FILE_NAME, "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "base", "refiner", "vae_decoder"}
)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished component: the key it was built for, its files, and the facts that its builder returned (JSON)."""

    key: str
    files: tuple[FileEntry, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _State:
    components: Mapping[str, Finished] = field(default_factory=dict)


def find_engine(destination: Path, parts: Mapping[str, str]) -> tuple[Manifest | None, list[str]]:
    """The finished engine at `destination` if it was built from the same `parts` (see `keys.build_parts`).

    Otherwise None and the reasons, one line each. Files are held to their sizes, not hashed: that is `verify`'s job.
    """
    destination = _real(destination)
    if not destination.exists():
        _tidy(destination, _recover)
    if not destination.is_dir() or not any(destination.iterdir()):
        return None, [f"there is no engine at {destination} yet"]
    try:
        manifest = read_manifest(destination)
    except PocketXLError as error:
        return None, [str(error)]
    reasons = explain_miss(manifest.build_key, parts)
    for entry in manifest.files:
        path = lexical_path(destination, entry.path)
        if not path.is_file() or path.stat().st_size != entry.size:
            reasons.append(f"{entry.path} is missing or was cut short")
    if reasons:
        return None, reasons
    _tidy(destination, _clear)  # after a build that was killed behind its last step
    return manifest, []


class Workspace:
    """The folder in which an engine grows; made by `workspace`."""

    def __init__(self, destination: Path, keys: Mapping[str, str], bytes_needed: int) -> None:
        self._destination = destination
        self._work = _work(destination)
        self._folder = self._work / "engine"
        self._bytes_needed = bytes_needed
        self._keys = keys
        self._state = self._read_state()
        self._remove_unfinished()
        shutil.rmtree(self.aside, ignore_errors=True)
        present = sum(f.size for done in self._state.components.values() for f in done.files)
        check_space(self._work, max(0, bytes_needed - present))

    @property
    def folder(self) -> Path:
        """The folder to be."""
        return self._folder

    @property
    def reference(self) -> Path:
        """Where the reference run keeps its results for the next build, should this one be killed."""
        return self._work / "reference"

    @property
    def aside(self) -> Path:
        """A folder for what is never published."""
        return self._work / "aside"

    @property
    def finished(self) -> frozenset[str]:
        """Components that an earlier, interrupted build has left finished."""
        return frozenset(self._state.components)

    def component(self, name: str, build: Callable[[Path], Mapping[str, Any]]) -> Finished:
        """The component `name`: what an earlier build left if every hash matches, otherwise made by `build`.

        `build(folder)` gets an empty folder, leaves there exactly the files that belong to the component, and returns
        facts about them (plain JSON data), which are kept with them.
        """
        found = self._state.components.get(name)
        if found is not None and self._intact(found):
            return found
        folder = lexical_path(self._folder, name)
        self._record({n: done for n, done in self._state.components.items() if n != name})
        shutil.rmtree(folder, ignore_errors=True)
        with storage_errors(self._work, self._bytes_needed):
            folder.mkdir(parents=True)
            self.aside.mkdir(exist_ok=True)
            facts = build(folder)
            paths = sorted(p.relative_to(self._folder).as_posix() for p in folder.rglob("*") if p.is_file())
            for path in paths:
                sync(self._folder / path)
            made = Finished(
                key=self._keys[name], files=tuple(entry_of(self._folder, path) for path in paths), facts=encode(facts)
            )
            self._record({**self._state.components, name: made})
        return made

    def write(self, path: str, content: bytes) -> FileEntry:
        """Write one small file (a tokenizer's, say) at `path` inside the engine folder."""
        with storage_errors(self._work, self._bytes_needed):
            write_durably(lexical_path(self._folder, path), content)
        return entry_of(self._folder, path)

    def publish(self, manifest: Manifest) -> None:
        """Write `engine.json` and put the folder in place of the destination in one step."""
        listed = {entry.path: entry.size for entry in manifest.files}
        paths = [p for p in self._folder.rglob("*") if p.is_file() and p != self._folder / FILE_NAME]
        present = {p.relative_to(self._folder).as_posix(): p.stat().st_size for p in paths}
        if listed != present:
            odd = sorted(path for path in {*listed, *present} if listed.get(path) != present.get(path))
            raise IntegrityError(
                f"{odd} differ between the manifest and the built folder; this is a defect of the build"
            )
        with storage_errors(self._work, self._bytes_needed):
            write_durably(self._folder / FILE_NAME, manifest.to_json().encode())
            for folder in (p for p in self._folder.rglob("*") if p.is_dir()):
                sync(folder)
            _swap(self._folder, self._destination, self._work / "replaced")
            sync(self._destination.parent)
            _clear(self._destination)

    def _intact(self, found: Finished) -> bool:
        try:
            for entry in found.files:
                hash_file(self._folder, entry)
        except PocketXLError:
            return False
        return True

    def _record(self, components: Mapping[str, Finished]) -> None:
        self._state = replace(self._state, components=components)
        write_durably(self._work / "state.json", json.dumps(encode(self._state), sort_keys=True).encode())

    def _read_state(self) -> _State:
        try:
            state = decode(_State, json.loads((self._work / "state.json").read_bytes()), "state.json")
        except (OSError, ValueError, RecursionError, IntegrityError):
            return _State()  # absent or damaged: everything is built again
        wanted = {n: done for n, done in state.components.items() if done.key == self._keys.get(n)}
        return _State(components=wanted)

    def _remove_unfinished(self) -> None:
        keep = {self._folder / f.path for done in self._state.components.values() for f in done.files}
        for path in sorted(self._folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in keep:
                path.unlink()


@contextmanager
def workspace(destination: Path, *, keys: Mapping[str, str], bytes_needed: int = 0) -> Iterator[Workspace]:
    """Build an engine for `destination`, alone and resumable.

    `keys`: component → what it is built from (see `keys.component_key`); finished work of other keys is removed.
    `bytes_needed`: an estimate for the whole engine, checked against the free space first.
    Nothing appears at `destination` before `Workspace.publish`, whatever happens. An interrupted block leaves the work
    folder for the next build. Raises `StorageError`: another builder, a full or unwritable disk, a foreign folder.
    """
    destination = _real(destination)
    with ExitStack() as stack:
        with storage_errors(destination.parent, bytes_needed):
            stack.enter_context(locked(_work(destination) / "lock", str(destination)))
            _recover(destination)
            _refuse_foreign(destination)
            made = Workspace(destination, keys, bytes_needed)
        yield made


def _real(destination: Path) -> Path:
    real = destination.resolve()
    if not real.name:
        raise StorageError(f"{destination} cannot hold an engine; choose a folder inside it")
    return real


def _work(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.building")


def _tidy(destination: Path, action: Callable[[Path], None]) -> None:
    """Do `action(destination)` if there is a work folder that no living builder uses, and we may write there."""
    if _work(destination).exists():
        with suppress(StorageError, OSError), locked(_work(destination) / "lock", str(destination)):
            action(destination)


def _refuse_foreign(destination: Path) -> None:
    if not destination.exists():
        return
    if not destination.is_dir():
        raise StorageError(f"{destination} is a file; choose a new or empty folder")
    if destination.is_mount():
        raise StorageError(f"{destination} is a mount point, which cannot be replaced; choose a folder inside it")
    names = {path.name for path in destination.iterdir()}
    foreign = sorted(names - ENGINE_NAMES)
    if foreign or (names and FILE_NAME not in names):
        raise StorageError(
            f"{destination} is not an engine folder (it holds {', '.join(foreign[:3] or sorted(names)[:3])}), "
            "so it is not replaced; choose a new or empty folder"
        )


def _recover(destination: Path) -> None:
    """Put the old engine back if a build was killed between its two renames."""
    replaced = _work(destination) / "replaced"
    if replaced.is_dir() and not destination.exists():
        replaced.rename(destination)


def _swap(new: Path, destination: Path, aside: Path) -> None:
    if destination.is_dir() and not any(destination.iterdir()):
        destination.rmdir()
    if not destination.exists():
        new.rename(destination)
    elif not _exchange(new, destination):
        shutil.rmtree(aside, ignore_errors=True)
        destination.rename(aside)
        new.rename(destination)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one atomic step (Linux, most file systems); False where that is not offered."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0


def _clear(destination: Path) -> None:
    """Remove the work, but not the lock, which is its holder's to remove."""
    work = _work(destination)
    for name in ("engine", "aside", "reference", "replaced"):
        shutil.rmtree(work / name, ignore_errors=True)
    for path in work.iterdir():
        if path.name != "lock":
            path.unlink()
