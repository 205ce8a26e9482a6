"""A build that finds no room says so with the place, and leaves nothing."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..fixtures.command_line import run

pytestmark = pytest.mark.usefixtures("quick_builds")


def test_a_full_disk_is_told_with_the_place_and_leaves_nothing(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx_ir

    def full(model: Any, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"the first bytes")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(onnx_ir, "save", full)
    out = tmp_path / "engine"
    shown = run(capsys, "build", tiny_folders["base"], "-o", out, "--recipe", "fp32", "--json")
    assert shown.status == 5
    assert str(tmp_path) in shown.complaint()
    assert "free some space" in shown.complaint().lower()
    assert shown.events()[-1]["error"] == "StorageError"
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="POSIX limits")
def test_a_limit_on_file_sizes_is_a_full_disk_too(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """No monkeypatch: the operating system refuses to write past 1 MB, in the middle of a weight file."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from pocketxl.engine.commands.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "build",
        str(tiny_folders["base"]),
        "-o",
        str(tmp_path / "e"),
        "--recipe",
        "fp32",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 5, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert str(tmp_path) in ended.stderr
    assert not (tmp_path / "e").exists()
