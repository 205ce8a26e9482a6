"""TensorRT engines are built where the GPU is; anywhere else one sentence says so before anything is done."""

import sys
from pathlib import Path

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.runners import cuda_driver
from pocketxl.export import build as building
from pocketxl.export.build import build
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import recipes_for
from pocketxl.export.targets.rtx.builder import Order, build_engine

from ....fixtures.command_line import run
from ....fixtures.cuda_library import CudaLibrary
from ....fixtures.tensorrt_full_on_host import FullLibrary


@pytest.fixture
def nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "open_as", None)


@pytest.mark.usefixtures("nothing_begins")
def test_without_a_gpu_it_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_driver, "_library", CudaLibrary)
    monkeypatch.setattr(CudaLibrary, "cuInit", lambda *_: 100, raising=False)
    shown = run(capsys, "build", tmp_path / "any", "-o", tmp_path / "out", "--target", "tensorrt")
    assert shown.status == 3
    assert "--target tensorrt builds on the GPU that the engine is for, and there is none: " in shown.complaint()
    assert "sees no NVIDIA GPU" in shown.complaint()
    assert shown.complaint().endswith("--target rtx and --target cuda build anywhere")


@pytest.mark.usefixtures("nothing_begins")
@pytest.mark.parametrize(("target", "module"), [("tensorrt", "tensorrt"), ("rtx", "tensorrt_rtx")])
def test_without_the_library_too(
    library: FullLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(IncompatibleError, match=rf"pip install -e '\.\[{target}\]'$"):
        build(tmp_path / "any", tmp_path / "out", target=target)
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_those_whose_numbers_the_library_documents() -> None:
    assert recipes_for(TARGETS["tensorrt"]) == ("fp16", "int8")


def order(folder: Path) -> Order:
    return Order(
        component="base/unet", onnx=folder / "m.onnx", profiles={"x": ((1, 4), (2, 4), (2, 4))}, architectures=(),
        engine=folder / "m.engine", library="tensorrt",
    )  # fmt: skip


def test_what_it_cannot_translate_or_build_is_told_in_its_name(library: FullLibrary, tmp_path: Path) -> None:
    library.unknown_node = "blocks.3/odd"
    with pytest.raises(IncompatibleError, match=r"^base/unet: TensorRT cannot translate node 'blocks\.3/odd' \(Odd\)"):
        build_engine(order(tmp_path))
    library.unknown_node, library.says = "", "no tactic\nfound"
    with pytest.raises(IncompatibleError, match=r"^base/unet: TensorRT cannot build it for this GPU: no tactic found$"):
        build_engine(order(tmp_path))
