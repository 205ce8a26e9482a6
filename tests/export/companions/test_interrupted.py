"""Ctrl-C in a build of something beside an engine: status 130, nothing half-written, and the next one goes on."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pocketxl.engine.folder.manifest import verify
from pocketxl.engine.progress import ProgressEvent
from pocketxl.export import options

from ...fixtures.builds import components_made
from ...fixtures.checkpoints import tiny_unet
from ...fixtures.command_line import run
from ...fixtures.ip_adapters import write_ip_adapter

pytestmark = pytest.mark.usefixtures("quick_builds")
ENCODER, PROJECTION = "image_prompt/encoder", "image_prompt/projection"


def test_an_ip_adapter(
    tiny_folders: Mapping[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, encoder = write_ip_adapter(tmp_path, tiny_unet("base"), plus=False)
    out = tmp_path / "out"
    words = (
        "build-ip-adapter", file, "--image-encoder", encoder, "--base", tiny_folders["base"], "-o", out, "--quiet"
    )  # fmt: skip

    def pressed(event: ProgressEvent) -> None:
        if event.stage == "lower" and event.detail == PROJECTION:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(options, "progress_of", lambda args: pressed)
        shown = run(capsys, *words)
    assert (shown.status, shown.out) == (130, "")
    assert shown.err.startswith("pocketxl: interrupted")
    assert not out.exists()
    with components_made() as made:
        assert run(capsys, *words).status == 0
    assert made == [PROJECTION], "the encoder was finished"
    assert verify(out).unknown == ()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
