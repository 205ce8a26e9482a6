"""Our systems: what is exported of a network's random weights, run by the engine's own runner."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import ours as systems
from benchmarks.gpu.cases import Case
from benchmarks.gpu.component import build_component, parts_of
from benchmarks.gpu.inputs import inputs_of
from benchmarks.gpu.networks import Network
from benchmarks.gpu.reference import references, relative_error
from benchmarks.gpu.systems import run_steps
from pocketxl.engine.program.program import Call
from pocketxl.engine.runners.base import Runner
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.export.targets.cuda import component as exporting
from pocketxl.export.targets.cuda.binaries import variants
from pocketxl.export.targets.cuda.target import CudaTarget

from ...fixtures.cuda_programs import binaries_of, fake_device
from ...tolerances import INT8_NARROW_UNET_RELATIVE

SM = 89
CUDA = CudaTarget(name="cuda", architectures=(SM,))


def test_a_component_is_built_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def uncompiled(calls: Iterable[Call], architectures: Sequence[int], **_: Any) -> dict[int, list[Any]]:
        return {sm: [] for sm in architectures}

    monkeypatch.setattr(exporting, "binaries", uncompiled)
    network = Network("vae", "cpu", tiny=True)
    first = build_component(network, "fp16", tmp_path, CUDA)
    assert {file.path.rsplit("/", 1)[1] for file in first.files} == {"program.json", "weights.bin", "kernels.bin"}
    monkeypatch.setattr(exporting, "lowered", None)  # nothing is exported now
    assert build_component(network, "fp16", tmp_path, CUDA) == first


@pytest.mark.slow
def test_the_runner_gives_the_networks_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the machine code: the kernels' sources run in Triton's interpreter."""

    def uncompiled(calls: Iterable[Call], architectures: Sequence[int], **_: Any) -> dict[int, list[Any]]:
        return {sm: variants(calls, sm) for sm in architectures}

    def write(path: Path, compiled: dict[int, list[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        specs, content = binaries_of(compiled[SM])
        path.write_bytes(content)
        return {str(SM): specs}, {}

    def make(network: Network, folder: Path) -> Runner:
        entry = build_component(network, "int8", folder, CUDA)
        return CudaRunner(folder, parts_of(network).name, entry, fake_device())

    monkeypatch.setattr(exporting, "binaries", uncompiled)
    monkeypatch.setattr(exporting, "write_kernels", write)
    monkeypatch.setattr(systems, "device_clock", lambda device: None)  # there are no events without a GPU
    network = Network("base", "cpu", tiny=True)
    case = Case(name="case", network="base", size=32, batch=1)
    expected = references(network, [case])["case"]
    with systems.opened(network, make=make, kept=tmp_path) as opened, opened(inputs_of(case, network)) as ready:
        found = np.asarray(run_steps(ready, 1))
    assert relative_error(torch.from_numpy(found), expected) < INT8_NARROW_UNET_RELATIVE
