"""The builder in a process of its own: however it ends, there is one error, and no process is left."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError
from pocketxl.export.targets.rtx import process
from pocketxl.export.targets.rtx.builder import Order

ORDER = Order(component="base/unet", onnx=Path("m.onnx"), profiles={}, architectures=("sm89",), engine=Path("m.engine"))
SLEEPS = "import time; time.sleep(60)"


class Started:
    """Processes that were started, each running `code` in place of the builder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        real = subprocess.Popen

        def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
            assert command[0] == sys.executable
            self.processes.append(real([sys.executable, "-c", code], **options))
            return self.processes[-1]

        monkeypatch.setattr(subprocess, "Popen", start)
        monkeypatch.setattr(process, "_TELL_EVERY", 0.05)


def test_ctrl_c_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, SLEEPS)
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        process.build_aside(ORDER, tell)
    assert time.monotonic() - began < 10
    assert said[0].startswith("compiling for ")
    assert started.processes[0].returncode is not None


def test_a_builder_that_the_system_kills_wanted_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, SLEEPS)
    with pytest.raises(MemoryBudgetError, match=r"base/unet: the system has killed .* builder, most likely for want"):
        process.build_aside(ORDER, lambda text: started.processes[0].kill())


def test_a_builder_that_crashes_is_an_error_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    Started(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(IncompatibleError, match=r"base/unet: .* builder crashed \(exit status 3\)"):
        process.build_aside(ORDER, lambda text: None)


def test_errors_come_through(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "m.onnx").write_bytes(b"no protobuf")
    order = Order(
        component="base/unet",
        onnx=tmp_path / "m.onnx",
        profiles={},
        architectures=("sm89",),
        engine=tmp_path / "m.engine",
    )
    with pytest.raises(IncompatibleError, match=r"base/unet: .*cannot translate the ONNX file"):
        process.build_aside(order, lambda text: None)


def test_it_ends_with_the_process_that_asked() -> None:
    """Killed without a chance to say so: its end of the pipe closes."""
    code = (
        f"import threading, time; from {process.__name__} import end_with_parent\n"
        "threading.Thread(target=end_with_parent, daemon=True).start(); print(1, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "1\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(10) == 1
