"""Every system on every case, each in a process of its own and one after another, so that its memory is its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any

import numpy as np

from ..journal import Journal
from .cases import Case
from .job import Deed, Job, Measured, Model
from .systems import REFERENCE, System

Child = Callable[[Job], dict[str, Any]]


def in_a_process(job: Job) -> dict[str, Any]:
    """What the child's last line says; `absent` with the reason where it did not come to an end."""
    command = [sys.executable, "-m", "benchmarks.cpu.child", job.encode()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"absent": f"its process ended with status {done.returncode} and said nothing (no memory?)"}
    return found


def run(
    cases: Iterable[Case], systems: Sequence[System], model: Model, journal: Journal, child: Child = in_a_process
) -> None:
    """Measure into the journal. What a system cannot do is noted there, and the rest goes on.

    The reference goes first, as errors are told against what it leaves in the model's work folder.
    """
    able = []
    for system in sorted(systems, key=lambda system: system.name != REFERENCE):
        if reason := system.reason():
            journal.note(f"{system.name}: left out, {reason}")
        else:
            able.append(system)
    for case in cases:
        for system in able:
            found = _measured(case, system, model, child)
            if isinstance(found, str):
                journal.note(f"{case.name} {system.name}: absent, {found}")
            else:
                _write(case, system, model, journal, found)


def _measured(case: Case, system: System, model: Model, child: Child) -> Measured | str:
    if reason := system.reason(case):
        return reason
    deeds: tuple[Deed, ...] = (
        ("prepare", "first", "run") if system.keeps and case.kind == "picture" else ("prepare", "run")
    )
    measured = {}
    for deed in deeds:
        measured[deed] = found = child(Job(deed=deed, system=system.name, case=case.name, model=model))
        if "absent" in found:
            return str(found["absent"])
    first = {"first_seconds": measured["first"]["seconds"]} if "first" in measured else {}
    return Measured(**{**measured["run"], **first})


def _write(case: Case, system: System, model: Model, journal: Journal, found: Measured) -> None:
    journal.add(case.name, system.name, "seconds", found.seconds, "s")
    if found.first_seconds is not None:
        journal.add(case.name, system.name, "first_seconds", found.first_seconds, "s")
    journal.add(case.name, system.name, "load_seconds", found.load_seconds, "s")
    journal.add(case.name, system.name, "peak_rss_bytes", found.peak_rss_bytes, "B")
    error = relative_error(model, case, system)
    if error is None:
        return
    if isfinite(error):
        journal.add(case.name, system.name, "relative_error", error, "1")
    else:
        journal.note(f"{case.name} {system.name}: its result is not finite")


def relative_error(model: Model, case: Case, system: System) -> float | None:
    """|result - reference| / |reference|, L2, from the files that both left; None: there is nothing to compare with."""
    files = [Job(deed="run", system=name, case=case.name, model=model).result for name in (system.name, REFERENCE)]
    if system.name == REFERENCE or system.own_noise or not files[1].exists():
        return None
    result, expected = (np.load(file, allow_pickle=False).astype(np.float64) for file in files)
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))
