"""A processor with AMX as one without."""

import subprocess
import sys

import pytest

from benchmarks.tiles import forbid_tiles

ASK = "import ctypes; print(ctypes.CDLL(None).syscall(158, 0x1023, 18))"


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that is asked")
def test_a_process_and_its_children_are_refused() -> None:
    """In a process of its own: there is no way back."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ASK!r}], check=True)"
    told = "from benchmarks.cpu.systems import has_bfloat16; print(has_bfloat16())"
    code = f"from benchmarks.tiles import forbid_tiles; forbid_tiles(); {ASK}; {child}; {told}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["-1", "-1", "False"]


def test_elsewhere_it_says_that_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(OSError, match="AMX can be forbidden by Linux on x86-64 alone"):
        forbid_tiles()
