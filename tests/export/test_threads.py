"""`--threads`: for torch's reference run and for the gate, and only as long as the build runs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pocketxl.engine.errors import RequestError
from pocketxl.export.build import build
from pocketxl.export.reference import measure
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.threads import torch_threads

from ..fixtures.command_line import run

pytestmark = pytest.mark.usefixtures("quick_builds")


def test_a_build_computes_with_that_many(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"reference": set(), "gate": set()}
    call, check, before = StreamedModule.__call__, measure.figures_of, torch.get_num_threads()

    def called(self: StreamedModule, inputs: Any) -> Any:
        seen["reference"].add(torch.get_num_threads())
        return call(self, inputs)

    def checked(*arguments: Any, threads: int, **how: Any) -> Any:
        seen["gate"].add(threads)
        return check(*arguments, threads=threads, **how)

    monkeypatch.setattr(StreamedModule, "__call__", called)
    monkeypatch.setattr(measure, "figures_of", checked)
    build(tiny_folders["base"], tmp_path / "engine", recipe="fp32", threads=3)
    assert seen == {"reference": {3}, "gate": {3}}
    assert torch.get_num_threads() == before


def test_the_number_is_as_before_after_an_error() -> None:
    def compute() -> None:
        with torch_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        compute()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_a_senseless_number_is_refused_before_anything_is_read(
    threads: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError, match=f"threads is {threads}"):
        build(tmp_path / "nowhere", tmp_path / "engine", threads=threads)
    shown = run(capsys, "build", tmp_path / "nowhere", "-o", tmp_path / "engine", "--threads", str(threads))
    assert (shown.status, "1 to 256" in shown.complaint()) == (2, True)
