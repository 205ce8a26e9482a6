"""An engine for onnx-fp16, and a provider that is taken for a GPU's."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from pocketxl.engine.runners import ort_providers

AsOnAGpu = Callable[[], AbstractContextManager[str]]


@pytest.fixture(scope="package")
def half_engine(tiny_folders: dict[str, Path], references: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the recipe's own thresholds."""
    from pocketxl.export.build import build

    engine = tmp_path_factory.mktemp("engines") / "half"
    base, refiner = tiny_folders["base"], tiny_folders["refiner"]
    build(base, engine, refiner=refiner, target="onnx-fp16", reference=references)
    return engine


@pytest.fixture
def as_on_a_gpu() -> AsOnAGpu:
    """While it is entered there is a provider by the name that it gives, with the processor in a GPU's place."""

    @contextmanager
    def entered() -> Iterator[str]:
        gpu = replace(ort_providers.PROVIDERS["cuda"], name="gpu", memory="cpu", arenas="cpu:0", options={})
        made = onnxruntime.InferenceSession
        with pytest.MonkeyPatch.context() as patched:

            def session(model: str, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
                (first, told), last = providers
                assert (first, told, last) == (gpu.identifier, {}, ort_providers.CPU.identifier)
                found = made(model, options, providers=[last], enable_fallback=enable_fallback)
                patched.setattr(found, "get_providers", lambda: [first, last])
                return found

            patched.setattr(ort_providers, "PROVIDERS", {**ort_providers.PROVIDERS, "gpu": gpu})
            patched.setattr(ort_providers, "_available", lambda: [gpu.identifier])
            patched.setattr(onnxruntime, "InferenceSession", session)
            yield gpu.name

    return entered
