"""Folders of what steers a U-Net from beside an engine, opened by name."""

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ..architecture import Models, UNetArchitecture
from ..companion import Companion
from ..errors import IncompatibleError, RequestError
from ..folder.manifest import read_manifest
from ..memory.controls import MODEL
from ..runners import open_runners
from ..runners.base import Runner

MOST = 8
_NAME = re.compile(r"\w[\w .-]{0,62}")


class Numbers(Protocol):
    """The architecture of one."""

    def misfits(self, unet: UNetArchitecture) -> str | None:
        """Why it cannot be used with such a U-Net; None if it can."""


N = TypeVar("N", bound=Numbers)
S = TypeVar("S", bound="Steering[Any]")


@dataclass(frozen=True, kw_only=True)
class Steering(Generic[N]):
    """One that is loaded beside an engine."""

    name: str
    architecture: N
    runners: Mapping[str, Runner]
    """By what they are called in the pipeline (`memory.controls`)."""
    model: str = ""
    """What its folder is called."""
    digest: str = ""
    """As an engine's."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is looked for: `title` in messages, `argument` of `Pipeline.load`, `command` that builds it."""

    title: str
    argument: str
    command: str
    of: Callable[[Companion], Numbers | None]
    """Its numbers, where a folder is one."""
    part: Callable[[str, str], str]
    """Its name and a component's → what the pipeline calls that."""


def open_folders(
    make: type[S],
    kind: Kind,
    given: Mapping[str, str | Path],
    models: Models,
    runners: Mapping[str, Runner],
    *,
    threads: int | None = None,
    provider: str | None = None,
) -> dict[str, S]:
    """Open those of a pipeline: name → folder. `runners`: the engine's, whose devices they share.

    Raises `RequestError` for names that cannot be, `IncompatibleError` for a folder of another kind or of one that
    does not fit the engine, and what `read_manifest` raises.
    """
    if not isinstance(given, Mapping) or len(given) > MOST:
        raise RequestError(f"{kind.argument} is {reprlib.repr(given)}; give {{name: folder}}, {MOST} at most")
    for name in given:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RequestError(
                f"a {kind.title} is called {reprlib.repr(name)}; use letters, digits, ' ', '.', '-', '_'"
            )
    found = {}
    for name, path in given.items():
        folder = Path(path)
        manifest = read_manifest(folder)
        numbers = None if manifest.companion is None else kind.of(manifest.companion)
        if numbers is None:
            other = "" if manifest.companion is None else f", but {manifest.companion.kind}"
            raise IncompatibleError(f"{folder} is no {kind.title}{other}; build one with `pocketxl {kind.command}`")
        if MODEL not in models.denoisers:
            raise IncompatibleError(f"{folder} is a {kind.title} for a base, and this engine has none")
        if misfit := numbers.misfits(models.denoisers[MODEL].unet):
            raise IncompatibleError(
                f"{folder} does not fit this engine: {misfit}; take a {kind.title} for its kind of model"
            )
        opened = open_runners(
            folder,
            manifest,
            threads=threads,
            provider=provider,
            beside=runners.values(),
            rename=lambda place, name=name: kind.part(name, place.rpartition("/")[2]),  # type: ignore[misc]
        )
        found[name] = make(
            name=name, architecture=numbers, runners=opened, model=folder.resolve().name, digest=manifest.digest
        )
    return found
