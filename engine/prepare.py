"""Prepares an engine for this machine: it then starts sooner, for more room on the disk.

A back end that rewrites graphs and copies weights whenever it loads them can keep the result beside the engine, good
for this processor and this version of the back end alone. It is never done unasked.
"""

from collections.abc import Iterator
from pathlib import Path

from .folder.manifest import read_manifest
from .miniature import engine_folder
from .progress import Progress, Silent, track
from .runners import open_runners
from .runners.base import Preparation as Preparation
from .runners.base import Prepares


def prepare_engine(
    path: str | Path | None = None, *, progress: Progress | None = None
) -> Iterator[tuple[str, Preparation]]:
    """Keep every component of an engine folder (None: the bundled miniature) as it is loaded, one after another.

    Yields its name and what was done; nothing where no component gains by it, or where the system does not tell what
    its processor can do. What is there already is hashed, and made anew if the disk has changed it. Every later load on
    this machine uses what was kept, as long as engine, processor and ONNX Runtime stay what they are, and gives the
    same numbers to the bit. It lies beside the component's files, or in the user's cache where those cannot be written.
    Raises `StorageError` for a disk that is full, `IncompatibleError` for an ONNX Runtime that cannot, and what loading
    raises; nothing half-written is left.
    """
    found = [(name, runner) for name, runner in _preparing(path) if runner.prepares()]
    with track(progress or Silent(), "prepare", total=len(found), unit="component") as advance:
        for name, runner in found:
            yield name, runner.prepare()
            advance()


def forget_prepared(path: str | Path | None = None) -> int:
    """Delete what `prepare_engine` has ever written for an engine folder, for any machine; bytes that were freed.

    Raises `StorageError` where that is refused.
    """
    return sum(runner.forget_prepared() for _, runner in _preparing(path))


def _preparing(path: str | Path | None) -> Iterator[tuple[str, Prepares]]:
    folder = engine_folder(path)
    for name, runner in open_runners(folder, read_manifest(folder)).items():
        if isinstance(runner, Prepares):
            yield name, runner
