"""What a build takes of the machine's memory, stage by stage, all of its processes together (Linux).

`anonymous` is what nothing can take away again, and what a machine runs out of; `resident` also counts pages of mapped
files, which the system may drop (each page once, however many processes have it).
"""

import json
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.5
"""Seconds between two looks."""
_COMPILING = "compiling"
_PROC = Path("/proc")


@dataclass(kw_only=True)
class Peak:
    """High-water marks in bytes; `largest`: of the resident set of a single process."""

    anonymous: int = 0
    resident: int = 0
    largest: int = 0


@dataclass(kw_only=True)
class Watched:
    """How a build went: its exit status, its seconds, and what it took at most in each stage."""

    status: int = 0
    seconds: float = 0.0
    peaks: dict[str, Peak] = field(default_factory=dict)


def watch_build(command: Sequence[str]) -> Watched:
    """Run `pocketxl build … --json`, whose errors are shown."""
    began, found, stage = time.perf_counter(), Watched(), ["begin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        ended = threading.Event()
        looking = threading.Thread(target=_look, args=(process.pid, stage, found.peaks, ended))
        looking.start()
        assert process.stdout is not None
        for name in stages(process.stdout):
            stage[0] = name
        ended.set()
        looking.join()
    found.status, found.seconds = process.returncode, time.perf_counter() - began
    return found


def stages(lines: Iterable[str]) -> Iterator[str]:
    """What is being done, from the events that a build prints: a component, `… compiling`, or another stage's name."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") != "progress" or event["stage"] == "build":
            continue
        component, _, doing = event["detail"].partition(": ")
        if event["stage"] != "lower" or not component:
            yield event["stage"]
        else:
            yield f"{component} {_COMPILING}" if _COMPILING in doing else component


def _look(pid: int, stage: Sequence[str], peaks: dict[str, Peak], ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        found = [memory for one in _with_children(pid) if (memory := _memory(one))]
        peak = peaks.setdefault(stage[0], Peak())
        peak.anonymous = max(peak.anonymous, sum(memory["Anonymous"] for memory in found))
        peak.resident = max(peak.resident, sum(memory["Pss"] for memory in found))
        peak.largest = max(peak.largest, *(memory["Rss"] for memory in found), 0)


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for file in (_PROC / str(pid) / "task").glob("*/children"):
        with suppress(OSError):  # it has ended
            for child in file.read_text().split():
                yield from _with_children(int(child))


def _memory(pid: int) -> dict[str, int]:
    """Bytes by the names that the kernel has for them; empty where the process has ended."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: 1024 * int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
