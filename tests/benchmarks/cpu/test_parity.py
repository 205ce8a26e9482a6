"""All systems are given the same: our float32 engine and diffusers come to the same network results and pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cpu import cases as table
from benchmarks.cpu import child
from benchmarks.cpu.job import Job, Model
from benchmarks.cpu.run import relative_error
from benchmarks.cpu.systems import REFERENCE, SYSTEMS

from ...tolerances import CPU_BENCHMARK

OURS = {system.name: system for system in SYSTEMS}["pocketxl-fp32"]


@pytest.fixture
def model(tiny_folders: dict[str, Path], tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    shutil.copytree(tiny_engine, tmp_path / "pocketxl-fp32")
    monkeypatch.setattr(child, "ENOUGH", 0)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # of the tests' own process
    return Model(base=tiny_folders["base"], refiner=tiny_folders["refiner"], work=tmp_path, threads=1, scale=16)


def both(case: str, model: Model) -> float:
    for name in (REFERENCE, OURS.name):
        job = Job(deed="run", system=name, case=case, model=model)
        assert child.work(job) is not None
    found = relative_error(model, job.of, OURS)
    assert found is not None
    return found


@pytest.mark.parametrize("case", ["unet_1024_b1", "vae_decode_1024", "picture_512_4"])
def test_the_same_result(case: str, model: Model) -> None:
    found = both(case, model)
    assert found < CPU_BENCHMARK


def test_the_same_guided_picture_of_base_and_refiner(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = np.load(_result("picture_512_4", model))
    monkeypatch.setattr(table, "GUIDED_STEPS", 4)
    found = both("picture_512_4", model)
    assert found < CPU_BENCHMARK
    assert np.abs(np.load(_result("picture_512_4", model)) - alone).max() > 100 * CPU_BENCHMARK


def _result(case: str, model: Model) -> Path:
    job = Job(deed="run", system=OURS.name, case=case, model=model)
    child.work(job)
    return job.result
