"""The benchmark of quantization: what its figures are figures of, and what it says where there are none."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quantization.__main__ import run, systems
from benchmarks.quantization.cases import Case, Settings, cases
from benchmarks.quantization.measure import distances
from benchmarks.quantization.ort_peers import ort_peers
from benchmarks.quantization.prompts import PROMPTS, pictures
from benchmarks.quantization.samples import ALL, LEVELS, levels_of
from benchmarks.quantization.simulated import MIXES
from benchmarks.quantization.systems import AbsentError, Opened, System, engine, torch_float32
from benchmarks.quantization.torch_peers import torch_peers
from benchmarks.quantization.torch_runner import torch_runners
from benchmarks.report import Record
from pocketxl.engine.errors import QualityError
from pocketxl.engine.specs import Role

from ..tolerances import MODEL_RELATIVE

SETTINGS = Settings(pictures=2, steps=5, size=64, threads=1)
Figures = dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def found(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    work = tmp_path_factory.mktemp("work")
    return cases(tiny_folders["base"], tiny_folders["refiner"], work, (1.0, 32.0), tails=False, settings=SETTINGS)


def _figures(records: list[Record], system: str) -> Figures:
    return {(r.case, r.metric): r.value for r in records if r.system == system}


def _noisy(case: Case, share: float) -> Opened:
    """float32 with every U-Net's output off by `share`."""
    runners = torch_runners(case.components)
    for runner in runners.values():
        if runner.spec.role is Role.UNET:
            runner.module.register_forward_hook(lambda module, inputs, output: output * (1 + share))
    return Opened(runners=runners, size_bytes=7)


def test_floats_lose_nothing_and_a_known_error_is_found(found: list[Case]) -> None:
    noisy = System(name="noisy", open=lambda case: _noisy(case, 0.25))
    records, left_out = run(found[:1], [engine("fp32"), torch_float32(), noisy])
    assert not left_out
    for system in ("pocketxl-fp32", "torch-fp32"):
        figures = _figures(records, system)
        errors = {case for (case, metric), value in figures.items() if metric == "relative_error"}
        assert {f"unstressed {kind}/unet {level}" for kind in ("base", "refiner") for level in LEVELS} < errors
        assert max(figures[case, "relative_error"] for case in errors) < MODEL_RELATIVE
        assert figures["unstressed pictures", "least_psnr_db"] > 80
        assert figures["unstressed pictures", "pictures"] == 2
        assert figures["unstressed base/unet", "seconds"] > 0
        assert figures["unstressed", "size_bytes"] > 1e6
    figures = _figures(records, "noisy")
    for level in LEVELS:
        assert figures[f"unstressed refiner/unet {level}", "relative_error"] == pytest.approx(0.25, rel=1e-5)
    assert figures["unstressed vae_decoder", "relative_error"] == 0
    assert figures["unstressed pictures", "mean_psnr_db"] < 60
    assert figures["unstressed", "size_bytes"] == 7


def test_stressed_pictures_are_held_to_the_unstressed_ones(found: list[Case]) -> None:
    records, _ = run(found, [engine("fp32")])
    figures = _figures(records, "pocketxl-fp32")
    assert figures["stress_32 pictures", "least_psnr_db"] > 80
    assert found[1].base != found[0].base


def test_levels_are_steps_of_the_run_with_both_sides_of_guidance(found: list[Case]) -> None:
    calls = [{"call": np.array(i)} for i in range(10)]
    numbers = {level: [int(one["call"]) for one in some] for level, some in levels_of(Role.UNET, calls).items()}
    assert numbers == {"high": [0, 1], "middle": [4, 5], "low": [8, 9]}
    assert levels_of(Role.VAE_DECODER, calls[:1]) == {ALL: calls[:1]}
    levels = found[0].samples.inputs["base/unet"]
    assert {level: len(some) for level, some in levels.items()} == dict.fromkeys(LEVELS, 2 * 2)  # two prompts
    times = [levels[level][0]["time_vectors"] for level in LEVELS]
    assert not any(np.array_equal(one, other) for one, other in pairwise(times))


def test_what_refuses_and_what_is_absent_is_told_and_nothing_else_is(found: list[Case]) -> None:
    opened: list[str] = []

    def refuse(case: Case) -> Opened:
        raise QualityError("worse than asked")

    def lack(case: Case) -> Opened:
        opened.append(case.name)
        raise AbsentError("it is not installed")

    def fail(case: Case) -> Opened:
        raise ValueError("a mistake")

    both = [System(name="refusing", open=refuse), System(name="absent", open=lack)]
    blind = [replace(case, pictures=False) for case in found]
    records, left_out = run(blind, both)
    assert [(r.case, r.system, r.metric) for r in records] == [(c.name, "refusing", "refused") for c in blind]
    assert opened == [found[0].name]
    assert left_out == {
        "absent": "it is not installed",
        **{f"{case.name} refusing": "worse than asked" for case in found},
    }
    with pytest.raises(ValueError, match="a mistake"):
        run(blind, [System(name="failing", open=fail)])


def test_a_peer_without_its_package_is_absent(found: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sdnq", None)
    (peer,) = (system for system in torch_peers() if system.name == "sdnq-int8")
    with pytest.raises(AbsentError, match="sdnq"):
        peer.open(found[0])


def test_quanto_s_weights_lose_what_eight_bits_lose(found: list[Case]) -> None:
    (peer,) = (system for system in torch_peers() if system.name == "quanto-int8-weight")
    opened = peer.open(found[0])
    errors = found[0].samples.errors("base/unet", opened.runners)
    assert all(1e-4 < error < 0.05 for error in errors.values())
    assert opened.size_bytes < 0.8 * torch_float32().open(found[0]).size_bytes


def test_onnx_runtime_s_own_quantization_is_a_peer(found: list[Case]) -> None:
    (peer,) = (system for system in ort_peers() if system.name == "ort-quantize-dynamic")
    opened = peer.open(found[0])
    errors = found[0].samples.errors("refiner/unet", opened.runners)
    assert all(1e-3 < error < 0.2 for error in errors.values())
    assert opened.size_bytes < engine("fp32").open(found[0]).size_bytes
    assert opened.runners["vae_decoder"] is found[0].fp32.runners["vae_decoder"]


def test_every_system_has_a_name_of_its_own() -> None:
    names = [system.name for system in systems(["fp32", "int8"], peers=True)]
    assert len(set(names)) == len(names) >= 10
    ours = [system.name for system in systems(["int8"], peers=False)]
    assert ours == ["pocketxl-int8", *MIXES]


def test_distances_of_pictures() -> None:
    references = np.full((2, 16, 16, 3), 0.5, np.float32)
    made = references.copy()
    made[1] += 0.1
    figures = {metric: value for metric, value, _ in distances(made, references)}
    assert figures["least_psnr_db"] == pytest.approx(20, abs=1e-4)
    assert figures["mean_psnr_db"] == pytest.approx(110, abs=1e-4)
    assert figures["least_ssim"] < figures["mean_ssim"] < 1


def test_picture_i_is_prompt_i_with_seed_i() -> None:
    asked: list[tuple[str, int]] = []

    class Pipe:
        def __call__(self, prompt: str, *, seed: int, **options: object) -> object:
            asked.append((prompt, seed))
            return type("Output", (), {"images": [np.zeros((8, 8, 3))]})

    pipe: Callable[..., object] = Pipe()
    assert pictures(pipe, 12, steps=3, size=8).shape == (12, 8, 8, 3)  # type: ignore[arg-type]
    assert asked == [(PROMPTS[i % len(PROMPTS)], i) for i in range(12)]
