"""An engine folder appears whole or not at all, and a build that was killed goes on where it stopped.

Everything is made in one hidden sibling of the destination, whose name is stable so that the next build finds it:

    .{name}.building/lock         held while a builder lives
    .{name}.building/state.json   finished components: key, files with hashes, facts
    .{name}.building/reference/   what the unquantized run has left so far
    .{name}.building/smoothing/   the factors that were found then
    .{name}.building/gate/        and the gate
    .{name}.building/engine/      the folder to be
    .{name}.building/aside/       what a component needs while it is made, and the engine does not
    .{name}.building/replaced/    the old engine, for the instant between two renames where they cannot be exchanged
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...engine.errors import IntegrityError, PocketXLError
from ...engine.folder.durable import sync, write_durably
from ...engine.folder.files import FileEntry, entry_of, hash_file, lexical_path
from ...engine.folder.manifest import FILE_NAME, Manifest
from ...engine.folder.schema import decode, encode
from .destination import STATE_FILE, clear, real, recover, swap, work_folder
from .existing import refuse_foreign
from .lock import locked
from .storage import check_space, storage_errors


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished component: the key it was built for, its files, and the facts that its builder returned (JSON)."""

    key: str
    files: tuple[FileEntry, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _State:
    components: Mapping[str, Finished] = field(default_factory=dict)


class Workspace:
    """The folder in which an engine grows; made by `workspace`."""

    def __init__(
        self, destination: Path, keys: Mapping[str, str], bytes_needed: int, intact: Mapping[str, Finished]
    ) -> None:
        self._destination = destination
        self._work = work_folder(destination)
        self._folder = self._work / "engine"
        self._bytes_needed = bytes_needed
        self._keys = keys
        self._intact = intact
        self.taken: list[str] = []
        """Components that were taken over from the engine that is to be replaced."""
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
    def smoothing(self) -> Path:
        """Where the factors of smoothing are kept for it, which components that are finished are asked for again."""
        return self._work / "smoothing"

    @property
    def gate(self) -> Path:
        """The same for the gate's figures and pictures."""
        return self._work / "gate"

    @property
    def aside(self) -> Path:
        """A folder for what is never published."""
        return self._work / "aside"

    @property
    def finished(self) -> frozenset[str]:
        """Components that need no making: left by an interrupted build, or intact in the engine to be replaced."""
        return frozenset({*self._state.components, *self._intact})

    @property
    def kept(self) -> bool:
        """True if an error leaves something that the next build can use."""
        return bool(self._state.components) or self.reference.exists()

    def component(self, name: str, build: Callable[[Path], Mapping[str, Any]]) -> Finished:
        """The component `name`: what is there already if every hash matches, otherwise made by `build`.

        `build(folder)` gets an empty folder, leaves there exactly the files that belong to the component, and returns
        facts about them (plain JSON data), which are kept with them.
        """
        found = self._state.components.get(name)
        if found is not None and self._matches(found):
            return found
        folder = lexical_path(self._folder, name)
        self._record({n: done for n, done in self._state.components.items() if n != name})
        shutil.rmtree(folder, ignore_errors=True)
        with storage_errors(self._work, self._bytes_needed):
            made = self._brought(name) or self._made(name, folder, build)
            for entry in made.files:
                sync(self._folder / entry.path)
            self._record({**self._state.components, name: made})
        return made

    def forget(self, name: str) -> None:
        """Have a component made anew when it is asked for next."""
        self._intact = {n: done for n, done in self._intact.items() if n != name}
        self._record({n: done for n, done in self._state.components.items() if n != name})

    def bring(self, entry: FileEntry) -> bool:
        """Take one file over from the engine that is to be replaced; False where it is not the one that `entry` says.

        A link where the file system can, which costs neither time nor space.
        """
        old, new = lexical_path(self._destination, entry.path), lexical_path(self._folder, entry.path)
        try:
            hash_file(self._destination, entry)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            _link_or_copy(old, new)
        except (PocketXLError, FileNotFoundError):
            return False
        return True

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
            refuse_foreign(self._destination)  # it was hours ago that anybody looked
            swap(self._folder, self._destination, self._work / "replaced")
            sync(self._destination.parent)
            clear(self._destination)

    def _made(self, name: str, folder: Path, build: Callable[[Path], Mapping[str, Any]]) -> Finished:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.aside.mkdir(exist_ok=True)
        facts = build(folder)
        paths = sorted(p.relative_to(self._folder).as_posix() for p in folder.rglob("*") if p.is_file())
        entries = tuple(entry_of(self._folder, path) for path in paths)
        return Finished(key=self._keys[name], files=entries, facts=encode(facts))

    def _brought(self, name: str) -> Finished | None:
        found = self._intact.get(name)
        if found is None or not all(self.bring(entry) for entry in found.files):
            return None
        self.taken.append(name)
        return found

    def _matches(self, found: Finished) -> bool:
        try:
            for entry in found.files:
                hash_file(self._folder, entry)
        except PocketXLError:
            return False
        return True

    def _record(self, components: Mapping[str, Finished]) -> None:
        self._state = replace(self._state, components=components)
        write_durably(self._work / STATE_FILE, json.dumps(encode(self._state), sort_keys=True).encode())

    def _read_state(self) -> _State:
        try:
            state = decode(_State, json.loads((self._work / STATE_FILE).read_bytes()), STATE_FILE)
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
def workspace(
    destination: Path,
    *,
    keys: Mapping[str, str],
    bytes_needed: int = 0,
    intact: Mapping[str, Finished] | None = None,
    afresh: bool = False,
) -> Iterator[Workspace]:
    """Build an engine for `destination`, alone and resumable.

    `keys`: component → what it is built from (see `keys.component_key`); finished work of other keys is removed, and
    with `afresh` all of it. `bytes_needed`: an estimate for the whole engine, checked against the free space first.
    `intact`: components that can be taken over from the engine that is to be replaced.
    Nothing appears at `destination` before `Workspace.publish`, whatever happens. A block that fails leaves what is
    finished for the next build, and the error has a note that says so. Raises `StorageError`: another builder, a full
    or unwritable disk, a folder that holds somebody's files.
    """
    destination = real(destination)
    with ExitStack() as stack:
        with storage_errors(destination.parent, bytes_needed):
            stack.enter_context(locked(work_folder(destination) / "lock", str(destination)))
            recover(destination)
            refuse_foreign(destination)
            if afresh:
                clear(destination)
            made = Workspace(destination, keys, bytes_needed, intact or {})
        try:
            yield made
        except BaseException as error:
            if made.kept:
                error.add_note(
                    f"what is finished is kept in {work_folder(destination)}, and the next build goes on there; delete "
                    "that folder to start afresh"
                )
            else:
                with suppress(OSError):
                    clear(destination)
            raise


def _link_or_copy(old: Path, new: Path) -> None:
    if not old.is_symlink():
        with suppress(OSError):
            os.link(old, new)
            return
    shutil.copyfile(old, new)
