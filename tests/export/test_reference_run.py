"""The unquantized run, kept for builds of the same checkpoint."""

from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import StorageError
from pocketxl.engine.progress import Silent
from pocketxl.engine.specs import Role
from pocketxl.export.build import build
from pocketxl.export.job import open_as, prepare
from pocketxl.export.job_keys import reference_key
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets import find_target

from ..fixtures.command_line import files, run

pytestmark = pytest.mark.usefixtures("quick_builds")


def test_another_recipe_takes_the_run_that_was_kept(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kept = tiny_folders["base"], tmp_path / "kept"
    build(base, tmp_path / "plain", recipe="int8")
    build(base, tmp_path / "first", recipe="fp32", reference=kept)
    before = files(kept)
    assert before
    call = StreamedModule.__call__

    def only_colours(self: StreamedModule, inputs: Any) -> Any:
        """What previews need of the VAE is no part of the reference run."""
        return call(self, inputs) if self.spec.role is Role.VAE_DECODER else pytest.fail("the reference ran again")

    with monkeypatch.context() as patch:
        patch.setattr(StreamedModule, "__call__", only_colours)
        build(base, tmp_path / "second", recipe="int8", reference=kept)
    assert files(tmp_path / "second") == files(tmp_path / "plain"), "the very bytes of a build of its own"
    assert files(kept) == before


def test_only_what_the_run_depends_on_has_a_folder_of_its_own(tiny_folders: dict[str, Path]) -> None:
    def key(target: str, recipe: str, size: int | None = None) -> str:
        opened, found = open_as(tiny_folders["base"], "base", None), find_target(target)
        made = prepare(opened, None, target=found, recipe=RECIPES[recipe], calibration_size=size, progress=Silent())
        return reference_key(made)

    first = key("cpu", "fp32")
    assert {key("cpu", "int8"), key("openvino", "int8"), key("rtx", "fp8"), key("onnx-fp16", "fp16")} == {first}
    assert key("cpu", "fp32", 128) != first


def test_a_damaged_run_is_made_again(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    base, kept = tiny_folders["base"], tmp_path / "kept"
    build(base, tmp_path / "first", recipe="fp32", reference=kept)
    before = files(kept)
    for path in kept.rglob("0.safetensors"):
        path.write_bytes(path.read_bytes()[:-8])
    build(base, tmp_path / "second", recipe="fp32", reference=kept)
    assert files(kept) == before
    assert files(tmp_path / "second") == files(tmp_path / "first")


def test_where_nothing_can_be_kept_nothing_begins(
    tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for place in (tmp_path / "letter.txt", tmp_path / "letter.txt" / "below"):
        shown = run(capsys, "build", tiny_folders["base"], "-o", tmp_path / "engine", "--reference", place)
        assert shown.status == StorageError.exit_code
        assert f"reference is {place}, and {tmp_path / 'letter.txt'} is no folder" in shown.complaint()
    assert not (tmp_path / "engine").exists()
