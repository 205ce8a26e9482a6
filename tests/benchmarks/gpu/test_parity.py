"""Ours and the peers compute the same: our modules, told what the conditioner makes, give diffusers' prediction."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu.calls import Calls
from benchmarks.gpu.cases import Case, Name, cases
from benchmarks.gpu.inputs import inputs_of
from benchmarks.gpu.networks import Network
from benchmarks.gpu.ours import STAND_IN
from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.reference import references, relative_error
from benchmarks.gpu.systems import System, run_steps

from ...tolerances import HALF_RELATIVE, MODEL_RELATIVE

PEER = {peer.name: peer for peer in PEERS}


def error_of(system: System, name: Name, *, steps: int = 1) -> float:
    network = Network(name, "cpu", tiny=True)
    case = Case(name="case", network=name, size=64, batch=2, steps=steps)
    expected = references(network, [case])["case"]
    with system.open(network) as opened, opened(inputs_of(case, network)) as ready:
        return relative_error(torch.from_numpy(np.asarray(run_steps(ready, steps))), expected)


@pytest.mark.parametrize("name", ["base", "refiner", "vae"])
def test_our_module_gives_diffusers_prediction(name: Name) -> None:
    assert error_of(STAND_IN, name) < MODEL_RELATIVE


def test_and_at_every_step_of_a_loop() -> None:
    assert error_of(STAND_IN, "base", steps=3) < MODEL_RELATIVE


@pytest.mark.parametrize("name", ["base", "refiner", "vae"])
def test_a_peer_in_half_precision_is_near_it_and_not_the_same(name: Name) -> None:
    assert MODEL_RELATIVE < error_of(PEER["diffusers-fp16"], name) < HALF_RELATIVE


@pytest.mark.parametrize("name", ["base", "vae"])
def test_the_truth_is_that_of_a_module_in_float32(name: Name) -> None:
    network = Network(name, "cpu", tiny=True)
    case = Case(name="case", network=name, size=64, batch=2)
    inputs = inputs_of(case, network)
    with torch.no_grad():
        expected = Calls(network.module(torch.float32), inputs, torch.float32)(inputs.latents, 0)
    assert torch.equal(references(network, [case])["case"], expected)


def test_the_truth_is_found_again_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, wanted = Network("vae", "cpu", tiny=True), cases(["vae_1024_b1"], tiny=True)
    first = references(network, wanted, tmp_path)
    monkeypatch.setattr(Network, "module", None)  # nothing is computed now
    again = references(network, wanted, tmp_path)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_compiled_peer_is_traced_whole() -> None:
    assert error_of(PEER["torch-compile-fp16"], "vae") < HALF_RELATIVE


def test_a_peer_with_fused_products_computes_the_same() -> None:
    assert error_of(PEER["torch-compile-fp16-fused"], "refiner") < HALF_RELATIVE


def test_short_sums_are_on_while_the_peer_is_open_and_only_then() -> None:
    matmul = torch.backends.cuda.matmul
    with PEER["torch-compile-fp16-short-sums"].open(Network("vae", "cpu", tiny=True)):
        assert matmul.allow_fp16_accumulation
    assert not matmul.allow_fp16_accumulation
    with PEER["torch-compile-fp16"].open(Network("vae", "cpu", tiny=True)):
        assert not matmul.allow_fp16_accumulation
