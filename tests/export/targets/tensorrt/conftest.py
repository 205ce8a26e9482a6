"""TensorRT's stand-in in place of the module, on a card that is host memory; ONNX Runtime runs what it compiles."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from pocketxl.engine.runners import device
from pocketxl.export.targets.rtx import process
from pocketxl.export.targets.rtx.builder import Order, build_engine
from pocketxl.export.targets.tensorrt import target

from ....fixtures.cuda_on_host import HostDriver
from ....fixtures.onnx_program import OnnxProgram
from ....fixtures.tensorrt_full_on_host import FullLibrary


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FullLibrary:
    """Builds in this process, which has the stand-in."""
    driver = HostDriver(total=8 << 30)
    library = FullLibrary(driver, program=OnnxProgram.of, compile=whole)
    monkeypatch.setitem(sys.modules, "tensorrt", library.module())
    monkeypatch.setattr(device, "CudaDriver", driver.opened)
    monkeypatch.setattr(target, "CudaDriver", driver.opened)

    def build_here(order: Order, tell: Callable[[str], Any]) -> None:
        build_engine(order)

    monkeypatch.setattr(process, "build_aside", build_here)
    return library


def whole(path: Path) -> bytes:
    """An ONNX file with its weights."""
    content: bytes = onnx.load(path).SerializeToString()
    return content
