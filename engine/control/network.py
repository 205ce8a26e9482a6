"""A ControlNet's folder, opened beside an engine."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..architecture import Models
from ..companion import ControlNetArchitecture
from ..errors import IncompatibleError, RequestError
from ..folder.manifest import read_manifest
from ..memory.controls import MODEL, part
from ..runners import open_runners
from ..runners.base import Runner

MOST = 8
_NAME = re.compile(r"\w[\w .-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class ControlNet:
    """One that is loaded beside an engine."""

    name: str
    architecture: ControlNetArchitecture
    runners: Mapping[str, Runner]
    """By what they are called in the pipeline (`memory.controls.part`)."""
    model: str = ""
    """What its folder is called."""
    digest: str = ""
    """As an engine's."""

    @property
    def hint_encoder(self) -> Runner:
        """Picture → hint."""
        return self.runners[part(self.name, "hint_encoder")]

    @property
    def conditioner(self) -> Runner:
        """Prompt and timesteps → its own keys, values and time vectors."""
        return self.runners[part(self.name, "conditioner")]

    @property
    def unet(self) -> Runner:
        """The part that runs in the loop."""
        return self.runners[part(self.name, "unet")]


def open_controlnets(
    given: Mapping[str, str | Path],
    models: Models,
    runners: Mapping[str, Runner],
    *,
    threads: int | None = None,
    provider: str | None = None,
) -> dict[str, ControlNet]:
    """Open the ControlNets of a pipeline: name → folder. `runners`: the engine's, whose devices they share.

    Raises `RequestError` for names that cannot be, `IncompatibleError` for a folder that is no ControlNet's or whose
    ControlNet does not fit the engine, and what `read_manifest` raises.
    """
    return {
        name: _open(name, folder, models, runners, threads=threads, provider=provider)
        for name, folder in named_folders("controlnets", "a ControlNet", given)
    }


def named_folders(argument: str, what: str, given: Mapping[str, str | Path]) -> list[tuple[str, Path]]:
    """Name and folder of each that is given. Raises `RequestError` for names that cannot be, and too many."""
    if not isinstance(given, Mapping) or len(given) > MOST:
        raise RequestError(f"{argument} is {reprlib.repr(given)}; give {{name: folder}}, {MOST} at most")
    for name in given:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RequestError(f"{what} is called {reprlib.repr(name)}; use letters, digits, ' ', '.', '-', '_'")
    return [(name, Path(path)) for name, path in given.items()]


def _open(
    name: str, folder: Path, models: Models, runners: Mapping[str, Runner], *, threads: int | None, provider: str | None
) -> ControlNet:
    manifest = read_manifest(folder)
    architecture = None if manifest.companion is None else manifest.companion.controlnet
    if architecture is None:
        other = "" if manifest.companion is None else f", but {manifest.companion.kind}"
        raise IncompatibleError(f"{folder} is no ControlNet{other}; build one with `pocketxl build-controlnet`")
    if MODEL not in models.denoisers:
        raise IncompatibleError(f"{folder} is a ControlNet for a base, and this engine has none")
    if misfit := architecture.misfits(models.denoisers[MODEL].unet):
        raise IncompatibleError(f"{folder} does not fit this engine: {misfit}; take a ControlNet for its kind of model")
    opened = open_runners(
        folder,
        manifest,
        threads=threads,
        provider=provider,
        beside=runners.values(),
        rename=lambda place: part(name, place.rpartition("/")[2]),
    )
    return ControlNet(
        name=name,
        architecture=architecture,
        runners=opened,
        model=folder.resolve().name,
        digest=manifest.digest,
    )
