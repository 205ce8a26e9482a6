"""What a build takes is told of all its processes, by what it is doing."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import build_memory
from benchmarks.build_memory import stages, watch_build


def event(stage: str, detail: str = "") -> str:
    return json.dumps({"event": "progress", "stage": stage, "detail": detail})


def test_events_say_which_component_and_whether_it_is_being_compiled() -> None:
    lines = [
        "no event of ours",
        event("build"),
        event("reference", "denoise"),
        event("lower"),
        event("lower", "base/unet"),
        event("lower", "base/unet: compiling for 3 s"),
        event("lower", "vae_decoder: segment 3 of 37: compiling for 1 s"),
        json.dumps({"event": "built"}),
    ]
    assert list(stages(lines)) == ["reference", "lower", "base/unet", "base/unet compiling", "vae_decoder compiling"]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells what a process takes")
def test_processes_that_it_starts_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_memory, "EVERY", 0.05)
    child = "b = bytearray(b'x') * (60 << 20); import time; time.sleep(2)"
    code = (
        "import subprocess, sys, time\n"
        f"print({event('lower', 'base/unet: compiling for 0 s')!r}, flush=True)\n"
        "b = bytearray(b'x') * (40 << 20)\n"
        f"raise SystemExit(subprocess.run([sys.executable, '-c', {child!r}]).returncode + 3)"
    )
    found = watch_build([sys.executable, "-c", code])
    assert (found.status, found.seconds > 1) == (3, True)
    peak = found.peaks["base/unet compiling"]
    assert peak.anonymous > 100 << 20, "both"
    assert 60 << 20 < peak.largest < 100 << 20, "the larger of them"
    assert peak.resident >= peak.anonymous
