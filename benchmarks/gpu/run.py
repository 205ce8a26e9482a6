"""Every system on every case, one network after another, until all is done or the time is up."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..journal import Journal
from .cases import Case, Name
from .inputs import inputs_of
from .measure import Measured, Memory, measure
from .networks import Network
from .reference import references, relative_error
from .systems import Opened, System


def run(
    cases: Iterable[Case],
    systems: Sequence[System],
    journal: Journal,
    *,
    device: str,
    tiny: bool = False,
    seconds: float = float("inf"),
    kept: Path | None = None,
) -> None:
    """Measure into the journal. A system that cannot do a case is noted there, and the rest goes on.

    `kept`: folder for what float32 gives, see `references`.
    """
    ends = time.monotonic() + seconds
    able = []
    for system in systems:
        if reason := system.reason():
            journal.note(f"{system.name}: left out, {reason}")
        else:
            able.append(system)
    by_network: dict[Name, list[Case]] = {}
    for case in cases:
        by_network.setdefault(case.network, []).append(case)
    for name, found in by_network.items():
        wanted = [system for system in able if name in system.networks]
        if time.monotonic() > ends:
            journal.note(f"time is up; not begun: {', '.join(case.name for case in found)}")
        elif wanted:
            network = Network(name, device, tiny)
            _network(network, found, wanted, journal, ends, _expected(network, found, journal, kept))


def _expected(network: Network, cases: list[Case], journal: Journal, kept: Path | None) -> dict[str, Tensor]:
    """What errors are told against; nothing where float32 finds no room."""
    memory = Memory(network.device)
    try:
        return references(network, cases, kept)
    except Exception as error:  # noqa: BLE001 - whatever torch raises
        journal.note(f"{network.name}: no error is told, since float32 fails: {_line(error)}")
        return {}
    finally:
        memory.empty()


def _network(
    network: Network,
    cases: list[Case],
    systems: list[System],
    journal: Journal,
    ends: float,
    expected: Mapping[str, Tensor],
) -> None:
    for system in systems:
        if time.monotonic() > ends:
            journal.note(f"time is up; not measured: {system.name} on {', '.join(case.name for case in cases)}")
            continue
        memory = Memory(network.device)
        try:
            with system.open(network) as opened:
                for case in cases:
                    if time.monotonic() > ends:
                        journal.note(f"time is up; not measured: {system.name} on {case.name}")
                        continue
                    _case(network, case, system, opened, journal, memory, expected.get(case.name))
        except Exception as error:  # noqa: BLE001 - systems raise what their libraries raise
            journal.note(f"{network.name} {system.name}: absent, {_line(error)}")
        memory.empty()


def _case(
    network: Network,
    case: Case,
    system: System,
    opened: Opened,
    journal: Journal,
    memory: Memory,
    expected: Tensor | None,
) -> None:
    begin = time.perf_counter()
    try:
        with opened(inputs_of(case, network)) as ready:
            made_ready = time.perf_counter() - begin
            measured = measure(ready, case.steps, memory, device=network.device, on_the_host=system.on_the_host)
    except Exception as error:  # noqa: BLE001 - systems raise what their libraries raise
        journal.note(f"{case.name} {system.name}: absent, {_line(error)}")
        return
    _write(case, system, journal, measured, made_ready, expected)


def _write(
    case: Case, system: System, journal: Journal, measured: Measured, made_ready: float, expected: Tensor | None
) -> None:
    if not bool(measured.result.isfinite().all()):
        journal.note(f"{case.name} {system.name}: its result is not finite")
    elif expected is not None:
        journal.add(case.name, system.name, "relative_error", relative_error(measured.result, expected), "1")
    journal.add(case.name, system.name, "seconds", measured.seconds, "s")
    if system.compiles:
        journal.add(case.name, system.name, "compile_seconds", made_ready + measured.start, "s")
    if measured.device is not None:
        journal.add(case.name, system.name, "device_seconds", measured.device, "s")
    if measured.peak_device_bytes is not None:
        journal.add(case.name, system.name, "peak_device_bytes", measured.peak_device_bytes, "B")
    if measured.device_used_bytes is not None:
        journal.add(case.name, system.name, "device_used_bytes", measured.device_used_bytes, "B")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
