"""A T2I adapter's build: from the command line to a folder that checks itself."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pocketxl.engine.check import check_engine
from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.manifest import FILE_NAME, Manifest, read_manifest, verify
from pocketxl.export.companions.t2i_adapter import build_t2i_adapter

from ...fixtures.command_line import run
from ...fixtures.t2i_adapters import write_adapter

pytestmark = pytest.mark.usefixtures("quick_builds")
PART = "t2i_adapter/encoder"
Folders = Mapping[str, tuple[Path, Path]]


def test_the_folder_is_whole_and_checks_itself_and_says_what_it_is(
    tiny_folders: Mapping[str, Path], tiny_t2i_adapters: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tiny_t2i_adapters["sketch"][0], tmp_path / "out"
    words = ("build-t2i-adapter", source, "--base", tiny_folders["base"], "-o", folder, "--quiet")
    assert run(capsys, *words).status == 0
    manifest = read_manifest(folder)
    assert (set(manifest.components), manifest.recipe) == ({PART}, "int8")
    assert not any("8" in name for name in manifest.components[PART].formats), "it runs once a picture, in floats"
    assert verify(folder).unknown == ()
    assert [check.passed for check in check_engine(folder)] == [True]
    assert "a T2I adapter, for use beside an engine" in run(capsys, "inspect", folder).out
    assert run(capsys, "inspect", folder, "--json").events()[0]["companion"] == "a T2I adapter"
    assert "is up to date" in run(capsys, *words).out


def test_one_for_another_base_is_refused_before_anything_is_read(
    tiny_folders: Mapping[str, Path], tmp_path: Path
) -> None:
    other, base = write_adapter(tmp_path, channels=[32, 128]), tiny_folders["base"]
    with pytest.raises(IncompatibleError, match=r"it adds 32 channels at 1/16, 128 channels at 1/16, the U-Net takes"):
        build_t2i_adapter(other, tmp_path / "out", base=base)
    with pytest.raises(IncompatibleError, match="is a refiner"):
        build_t2i_adapter(write_adapter(tmp_path, "a"), tmp_path / "out", base=tiny_folders["refiner"])
    with pytest.raises(IncompatibleError, match="T2I adapters are built for cpu so far, not for rtx"):
        build_t2i_adapter(write_adapter(tmp_path, "b"), tmp_path / "out", base=base, target="rtx")
    assert not (tmp_path / "out").exists()


def test_a_description_that_contradicts_itself_is_refused(tiny_t2i_adapters: Folders) -> None:
    manifest = read_manifest(tiny_t2i_adapters["sketch"][1])
    assert manifest.companion is not None
    adapter = manifest.companion.t2i_adapter
    assert adapter is not None
    wrong = (
        replace(manifest.companion, t2i_adapter=replace(adapter, widths=(64, 64))),
        replace(manifest.companion, t2i_adapter=replace(adapter, hint_channels=4)),
        replace(manifest.companion, t2i_adapter=replace(adapter, layers=17)),
        replace(manifest.companion, t2i_adapter=None),
    )
    for companion in wrong:
        other = replace(manifest, companion=companion)
        with pytest.raises(IntegrityError, match="contradicts itself: companion"):
            Manifest.from_json(other.to_json(), where=FILE_NAME)


def test_an_option_that_no_build_has_is_no_option(tiny_folders: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="recipes"):
        build_t2i_adapter(tmp_path, tmp_path / "out", base=tiny_folders["base"], recipes="fp32")  # type: ignore[call-arg]
