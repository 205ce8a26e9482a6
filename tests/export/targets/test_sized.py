"""Targets for larger pictures than by themselves."""

from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.export.build import build
from pocketxl.export.targets import TARGETS, find_target, sized_target

from ...fixtures.command_line import run


@pytest.mark.parametrize("name", TARGETS)
def test_without_a_size_it_is_the_target_itself(name: str) -> None:
    assert sized_target(name, None) is find_target(name)
    assert sized_target(name, None).described == name


def test_the_build_key_has_the_size_and_the_name_does_not() -> None:
    found = sized_target("rtx-sm89", 2048)
    assert found.name == "rtx-sm89"
    assert found.described == "rtx-sm89, for pictures up to 2048 pixels a side"
    assert sized_target("rtx-sm89", 1536).described == "rtx-sm89", "what it takes anyway"


@pytest.mark.parametrize("size", [0, 1024, 1600 + 1, 2112, 1600.0, "1600", True])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(RequestError, match=r"largest is .*; it must be a multiple of 64 from 1536 to 2048 pixels"):
        sized_target("rtx", size)


@pytest.mark.parametrize("name", ["cpu", "onnx-fp16", "openvino", "cuda"])
def test_targets_that_take_every_size_have_no_largest(name: str) -> None:
    with pytest.raises(RequestError, match=rf"engines for {name} take pictures of every size.*\(1600\).*leave it out"):
        sized_target(name, 1600)


def test_the_command_refuses_before_it_reads_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "build", tmp_path / "none", "-o", tmp_path / "out", "--largest", "2048")
    assert "engines for cpu take pictures of every size" in shown.complaint()
    with pytest.raises(RequestError, match="largest is 3000"):
        build(tmp_path / "none", tmp_path / "out", target="rtx", largest=3000)
    assert not list(tmp_path.iterdir())
