"""`benchmarks.rtx`: all but the card, which it has not seen; without one it says so in a sentence."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import ours as systems
from benchmarks.gpu.cases import Case
from benchmarks.gpu.component import build_component, numbers_of, parts_of
from benchmarks.gpu.inputs import inputs_of
from benchmarks.gpu.networks import Network
from benchmarks.gpu.ours import built_runner, opened, ours, reason, rtx_target
from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.reference import references, relative_error
from benchmarks.gpu.scales import input_scales
from benchmarks.gpu.systems import run_steps
from benchmarks.rtx import SYSTEMS
from pocketxl.engine.compiled.read import read_compiled
from pocketxl.export.targets import TARGETS

from ..fixtures.tensorrt_full_builds import install
from ..tolerances import HALF_RELATIVE, INT8_NARROW_UNET_RELATIVE


@pytest.fixture
def on_a_card(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A GPU whose compute capability can be changed."""
    capability = [(8, 9)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability[-1])
    return capability


def test_its_systems_are_those_of_the_benchmark_for_gpus() -> None:
    known = {system.name for system in (*PEERS, *ours())}
    assert set(SYSTEMS) <= known


def test_without_a_gpu_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.gpu.__main__ import main

    monkeypatch.setattr(sys, "argv", ["rtx"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main("rtx", SYSTEMS) == 2
    assert capsys.readouterr().err == "error: no GPU here; --tiny runs narrow networks on the processor\n"
    assert reason("int8", rtx_target) == "there is no GPU"


def test_what_the_card_or_the_library_cannot_is_left_out_with_the_reason(
    on_a_card: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert reason("int8", rtx_target) is None
    on_a_card.append((7, 5))
    assert "rtx-sm75 cannot do recipe 'int4-weight'" in str(reason("int4-weight", rtx_target))
    assert reason("int8-weight", rtx_target) is None
    on_a_card.append((9, 0))
    assert reason("fp16", rtx_target) == "TensorRT for RTX builds nothing for compute capability 9.0"
    on_a_card.append((8, 9))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert "pip install" in str(reason("fp16", rtx_target))


def test_scales_are_of_every_layer_that_int8_asks_for() -> None:
    network = Network("base", "cpu", tiny=True)
    scales = input_scales(network)
    parts, target = parts_of(network), TARGETS["rtx-sm89"]
    numbers = numbers_of("int8", parts, target, lambda: scales)
    layers = {name.removesuffix(".weight") for name in parts.module().state_dict() if name.endswith(".weight")}
    products = {name for name in layers if name in scales}
    assert products == {name for name in layers if len(network.weights.shapes[f"{name}.weight"]) > 1}
    for name in products:
        assert scales[name].shape == (network.weights.shapes[f"{name}.weight"][1],)
        assert 0 < scales[name].min() == scales[name].max() < 10
    assert numbers.input_scales is scales
    assert not numbers_of("fp16", parts, target, lambda: pytest.fail("not asked for")).input_scales


def test_an_rtx_component_is_the_recipe_s(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    network = Network("vae", "cpu", tiny=True)
    entry = build_component(network, "int8", tmp_path, TARGETS["rtx-sm89"])
    assert [file.path for file in entry.files] == ["vae_decoder/model.engine"]
    compiled = read_compiled(tmp_path / entry.files[0].path)
    assert compiled is not None
    assert any(product.factors == ("int8", "int8") for product in compiled.products)
    assert build_component(network, "int8", tmp_path, TARGETS["rtx-sm89"]) == entry
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry.json", "vae_decoder"]


@pytest.mark.parametrize(("recipe", "limit"), [("fp16", HALF_RELATIVE), ("int8", INT8_NARROW_UNET_RELATIVE)])
def test_what_is_built_is_run_and_held_to_float32(
    tmp_path: Path, recipe: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the stand-in of TensorRT, which computes with ONNX Runtime; TensorRT for RTX has the same files and runner."""

    def make(network: Network, folder: Path) -> Any:
        return built_runner(network, folder, recipe=recipe, target=lambda: TARGETS["tensorrt"])

    clocked: list[object] = []
    library = install(monkeypatch)
    monkeypatch.setattr(systems, "device_clock", clocked.append)
    network = Network("base", "cpu", tiny=True)
    case = Case(name="case", network="base", size=64, batch=2)
    expected = references(network, [case])["case"]
    with opened(network, make=make, kept=tmp_path) as system, system(inputs_of(case, network)) as ready:
        assert ready.device_seconds is None
        found = np.asarray(run_steps(ready, 1))
    assert not clocked, "the library replays its own graphs"
    assert library.driver.closed
    error = relative_error(torch.from_numpy(found), expected)
    assert 0 < error < limit
    assert (error > HALF_RELATIVE / 10) == (recipe == "int8")
