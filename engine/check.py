"""Holds an engine to its reference samples on this very machine: error, time and memory of every component.

A build is gated where it was made. Another processor has other integer kernels, and a GPU engine that was built without
one has never run: only the machine that runs it can tell.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from .errors import IncompatibleError
from .folder.cache import cache_folder
from .folder.durable import write_whole
from .folder.manifest import FILE_NAME, Manifest, read_manifest
from .folder.samples import read_sample
from .memory.residency import Residency
from .memory.resident import forget_resident_peak, resident_peak
from .miniature import engine_folder
from .runners import open_runners
from .runners.base import Loaded, Runner, call
from .specs import Arrays

_LONG_ENOUGH = 1.0
_MOST_CALLS = 50


@dataclass(frozen=True, kw_only=True)
class ComponentCheck:
    """What this machine makes of one component."""

    name: str
    device: str
    relative_error: float
    """|engine - reference| / |reference|, L2, of the output that is worst."""
    recorded: float | None
    """The same where the engine was built; None if it has not run there."""
    limit: float
    seconds: float
    """One call on the sample, the fastest of those after the first, which also brings the weights in."""
    load_seconds: float
    peak_bytes: int | None
    """What loading and calling added to the process's resident set; None where the system does not tell."""
    device_bytes: int | None = None
    """What loading and calling took of a GPU's memory; None on a processor."""

    @property
    def passed(self) -> bool:
        """Whether the error is within the recipe's limit."""
        return self.relative_error <= self.limit  # false for NaN


def check_engine(
    path: str | Path | None = None, *, threads: int | None = None, provider: str | None = None
) -> Iterator[ComponentCheck]:
    """Check every component of an engine folder (None: the bundled miniature), one in memory at a time.

    `provider`: as `Pipeline.load` takes it. Raises `IncompatibleError` for an engine that carries no samples, what
    `open_runners` raises for a provider, and what loading and calling raise. Once every component has passed, `advice`
    says no more on this machine.
    """
    folder = engine_folder(path)
    manifest = read_manifest(folder)
    if not all(entry.sample is not None for entry in manifest.components.values()):
        raise IncompatibleError(f"{folder} carries no reference samples; build it again with `pocketxl build`")
    runners = open_runners(folder, manifest, threads=threads, provider=provider)
    found = []
    try:
        for name, runner in runners.items():
            found.append(_check(folder, manifest, name, runner))
            yield found[-1]
        device = _device(runners)
    finally:
        Residency(runners).release_all()
    if all(check.passed for check in found):
        _remember(folder, device)


def advice(path: str | Path | None = None, *, provider: str | None = None) -> str | None:
    """What to tell somebody who runs this engine for the first time on a device that it was not measured on.

    `provider`: the one that it was run with. Said once for each engine and device: None from then on, and after a check
    that passed.
    """
    folder = engine_folder(path)
    manifest = read_manifest(folder)
    runners = open_runners(folder, manifest, provider=provider)
    device = _device(runners)
    Residency(runners).release_all()
    if device == manifest.measured_on or _marker(folder, device).exists():
        return None
    _remember(folder, device)
    where = f"was measured on {manifest.measured_on}" if manifest.measured_on else "has not run where it was built"
    shown = ("" if path is None else f" {path}") + ("" if provider is None else f" --provider {provider}")
    return f"this engine {where}; `pocketxl check{shown}` shows what {device or 'this machine'} makes of it"


def relative_error(expected: Arrays, actual: Arrays) -> float:
    """|actual - expected| / |expected| (L2) of the output that is worst; NaN counts as worst."""
    errors = []
    for name, wanted in expected.items():
        size = float(np.linalg.norm(wanted.astype(np.float64)))
        apart = float(np.linalg.norm(actual[name].astype(np.float64) - wanted))
        errors.append(apart / size if size else (0.0 if apart == 0 else float("inf")))
    return max(errors, key=lambda error: float("inf") if np.isnan(error) else error)


def _device(runners: Mapping[str, Runner]) -> str:
    """What an engine runs on: the GPU, where some components are left to the processor beside it."""
    devices = [runner.device for runner in runners.values()]
    return next((device for device in devices if device.room is not None), devices[0]).name


def _check(folder: Path, manifest: Manifest, name: str, runner: Runner) -> ComponentCheck:
    entry, sample = manifest.components[name], read_sample(folder, manifest, name)
    assert sample is not None  # `check_engine` has looked
    inputs, expected = sample
    before = resident_peak() if forget_resident_peak() else None
    in_use = runner.device.in_use
    started = time.perf_counter()
    with Loaded(runner):
        loaded = time.perf_counter()
        outputs = call(runner, inputs)
        seconds = min(_again(runner, inputs))
        taken = runner.device.in_use  # until it is released, nothing that it took goes back
    after = resident_peak()
    return ComponentCheck(
        name=name,
        device=runner.device.name,
        relative_error=relative_error(expected, outputs),
        recorded=entry.quality.get("relative_error") if entry.quality_of == "engine" else None,
        limit=float("inf") if entry.max_relative_error is None else entry.max_relative_error,
        seconds=seconds,
        load_seconds=loaded - started,
        peak_bytes=None if before is None or after is None else max(0, after - before),
        device_bytes=None if in_use is None or taken is None else max(0, taken - in_use),
    )


def _again(runner: Runner, inputs: Arrays) -> Iterator[float]:
    """Seconds of one call after another: once, and where calls are short until they have had `_LONG_ENOUGH` together.

    A GPU's library still compiles kernels for these shapes during the first calls.
    """
    began = time.perf_counter()
    for _ in range(_MOST_CALLS):
        started = time.perf_counter()
        call(runner, inputs)
        yield time.perf_counter() - started
        if time.perf_counter() - began > _LONG_ENOUGH:
            return


def _marker(folder: Path, device: str) -> Path:
    """A file in the user's cache, never in the engine: its folder may be read-only, and is sealed by hashes."""
    engine = (folder / FILE_NAME).read_bytes()
    return cache_folder() / "checked" / sha256(engine + device.encode()).hexdigest()


def _remember(folder: Path, device: str) -> None:
    marker = _marker(folder, device)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_whole(marker, b"")
    except OSError:
        return  # then it is said again
