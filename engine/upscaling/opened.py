"""An upscaler's folder, opened."""

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import IncompatibleError, RequestError
from ..folder.manifest import read_manifest
from ..request.hires import UPSCALERS
from ..runners import open_runners
from ..runners.base import Runner
from ..upscaler import UPSCALER, Enlarger

_MOST_NAME = 64


@dataclass(frozen=True, kw_only=True)
class OpenedUpscaler:
    """One, ready to be loaded."""

    known: Enlarger
    runner: Runner


def open_upscaler(path: str | Path, *, threads: int | None = None, beside: Iterable[Runner] = ()) -> OpenedUpscaler:
    """Open a folder that `build-upscaler` made; `beside`: an engine's runners, whose processor it shares.

    It was built for a processor, and runs there whatever the engine computes on.

    Raises `IncompatibleError` for another kind of folder, and what `read_manifest` and `open_runners` raise.
    """
    if not isinstance(path, str | Path):
        raise RequestError(f"upscaler is {reprlib.repr(path)}; give the folder that `pocketxl build-upscaler` made")
    folder = Path(path)
    manifest = read_manifest(folder)
    architecture = None if manifest.companion is None else manifest.companion.upscaler
    if architecture is None:
        raise IncompatibleError(f"{folder} is no upscaler; build one with `pocketxl build-upscaler`")
    processors = [one for one in beside if one.device.concurrent]
    runners = open_runners(folder, manifest, threads=threads, beside=processors)
    name = folder.resolve().name[:_MOST_NAME]
    if name.lower() in UPSCALERS:  # which are others
        name = f"{name} network"
    known = Enlarger(name=name, digest=manifest.digest, architecture=architecture)
    return OpenedUpscaler(known=known, runner=runners[UPSCALER])
