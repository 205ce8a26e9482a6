"""The back ends. A manifest names the one that each component needs; a new back end is a row in `RUNNERS`."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import IncompatibleError
from ..folder.manifest import Manifest
from ..request.limits import integer
from .base import Runner

RUNNERS: Mapping[str, tuple[str, str]] = {
    "ort": (".ort", "OrtRunner"),
    "tensorrt": (".tensorrt", "TensorRTRunner"),
}
"""Kind → module and class; imported only when an engine asks for it."""


def open_runners(folder: Path, manifest: Manifest, *, threads: int | None = None) -> dict[str, Runner]:
    """One runner per component, nothing loaded yet.

    Raises `IncompatibleError` for a kind that this release lacks, `RequestError` for a senseless number of threads.
    """
    if threads is not None:
        integer("threads", threads)  # a hundred thousand would take the whole machine down
    runners: dict[str, Runner] = {}
    for name, entry in manifest.components.items():
        if entry.runner not in RUNNERS:
            raise IncompatibleError(
                f"{name} needs the runner {entry.runner!r}, this release has {', '.join(RUNNERS)}; "
                "install a newer pocketxl"
            )
        module, kind = RUNNERS[entry.runner]
        make: Callable[..., Any] = getattr(import_module(module, __name__), kind)
        runners[name] = make(folder, name, entry, threads=threads)
    return runners
