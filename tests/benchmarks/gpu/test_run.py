"""What is recorded of a run: all that was measured, and why the rest was not; no speed is claimed here."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import measure as measuring
from benchmarks.gpu import run as running
from benchmarks.gpu.calls import Calls
from benchmarks.gpu.cases import cases
from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.measure import LEAST, Memory, measure
from benchmarks.gpu.networks import Network
from benchmarks.gpu.run import run
from benchmarks.gpu.systems import EVERY, STRIDE, Opened, Ready, System, run_steps
from benchmarks.journal import Journal
from benchmarks.report import Record
from benchmarks.table import table

VAE = cases(["vae_1024_b1"], tiny=True)
Change = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "ENOUGH", 0)


def system(name: str, change: Change = lambda picture: picture, **more: Any) -> System:
    """Diffusers in float32, and what `change` does to its result."""

    @contextmanager
    def opened(network: Network) -> Iterator[Opened]:
        module = network.module(torch.float32)

        @contextmanager
        def ready(inputs: Inputs) -> Iterator[Ready]:
            calls = Calls(module, inputs, torch.float32)
            yield Ready(latents=inputs.latents, predict=lambda latents, step: change(calls(latents, step)))

        yield ready

    return System(name=name, networks=EVERY, open=opened, **more)


def broken(picture: Tensor) -> Tensor:
    raise RuntimeError("no such kernel\nand more lines")


def figures(journal: Journal, metric: str) -> dict[str, float]:
    return {record.system: record.value for record in journal.records if record.metric == metric}


def test_a_run_has_the_time_and_the_error_of_every_system() -> None:
    journal = Journal("gpu", None, {})
    run(VAE, [system("exact"), system("off", lambda x: 1.1 * x)], journal, device="cpu", tiny=True)
    assert set(figures(journal, "seconds")) == {"exact", "off"}
    assert all(seconds > 0 for seconds in figures(journal, "seconds").values())
    assert figures(journal, "relative_error") == pytest.approx({"exact": 0, "off": 0.1}, rel=1e-5)
    assert not journal.notes


def test_who_fails_is_named_and_the_rest_goes_on() -> None:
    journal = Journal("gpu", None, {})
    run(VAE, [system("broken", broken), system("exact")], journal, device="cpu", tiny=True)
    assert journal.notes == ["vae_1024_b1 broken: absent, RuntimeError: no such kernel"]
    assert set(figures(journal, "seconds")) == {"exact"}


def test_a_result_that_is_no_number_is_no_record() -> None:
    journal = Journal("gpu", None, {})
    run(VAE, [system("nan", lambda x: x * float("nan"))], journal, device="cpu", tiny=True)
    assert journal.notes == ["vae_1024_b1 nan: its result is not finite"]
    assert not figures(journal, "relative_error")


def test_without_the_truth_time_is_told_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(running, "references", full)
    journal = Journal("gpu", None, {})
    run(VAE, [system("exact"), system("nan", lambda x: x * float("nan"))], journal, device="cpu", tiny=True)
    assert journal.notes == [
        "vae: no error is told, since float32 fails: OutOfMemoryError: CUDA out of memory.",
        "vae_1024_b1 nan: its result is not finite",
    ]
    assert set(figures(journal, "seconds")) == {"exact", "nan"}
    assert not figures(journal, "relative_error")


def test_who_cannot_run_here_says_why() -> None:
    journal = Journal("gpu", None, {})
    run(VAE, [system("absent", reason=lambda: "it is not installed")], journal, device="cpu", tiny=True)
    assert journal.notes == ["absent: left out, it is not installed"]
    assert not journal.records


def test_nothing_begins_once_the_time_is_up() -> None:
    journal = Journal("gpu", None, {})
    run(VAE, [system("late", broken)], journal, device="cpu", tiny=True, seconds=-1)
    assert journal.notes == ["time is up; not begun: vae_1024_b1"]


def test_a_compiler_is_told_apart_from_what_it_makes() -> None:
    journal = Journal("gpu", None, {})
    run(VAE, [system("compiled", compiles=True), system("eager")], journal, device="cpu", tiny=True)
    assert set(figures(journal, "compile_seconds")) == {"compiled"}


def test_the_file_is_whole_after_every_record(tmp_path: Path) -> None:
    journal = Journal("gpu", tmp_path / "gpu.json", {"gpu": "some card"})
    for count, metric in enumerate(("seconds", "relative_error"), start=1):
        journal.add("case", "system", metric, 2.0, "s")
        data = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
        assert (data["benchmark"], len(data["records"]), data["environment"]["gpu"]) == ("gpu", count, "some card")
    journal.note("left out")
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["environment"]["notes"] == ["left out"]


def test_a_loop_goes_along_each_prediction() -> None:
    steps: list[int] = []

    def predict(latents: float, step: int) -> float:
        steps.append(step)
        return latents

    ready = Ready(latents=1.0, predict=predict)
    assert run_steps(ready, 3) == pytest.approx((1 - STRIDE) ** 3)
    assert steps == [0, 1, 2]
    assert run_steps(ready, 1) == 1.0  # the prediction itself


def test_the_first_calls_are_not_among_those_that_are_timed() -> None:
    calls: list[int] = []

    def predict(latents: Tensor, step: int) -> Tensor:
        calls.append(step)
        if len(calls) <= 1:
            torch.ones(1 << 20).sort()  # slow at first
        return latents

    ready = Ready(latents=torch.ones(1), predict=predict, device_seconds=lambda: 0.25)
    found = measure(ready, 1, Memory("cpu"), device="cpu", on_the_host=True)
    assert len(calls) > LEAST
    assert found.start > found.seconds
    assert found.device == 0.25
    assert found.peak_device_bytes is None


def test_the_table_tells_each_as_a_multiple_of_our_fastest() -> None:
    def seconds(system: str, value: float) -> Record:
        return Record(case="case", system=system, metric="seconds", value=value, unit="s")

    text = table([seconds("peer", 0.03), seconds("pocketxl-a", 0.02), seconds("pocketxl-b", 0.01)])
    assert [line.split()[-3:] for line in text.splitlines()[1:]] == [
        ["3.00", "x", "ours"],
        ["2.00", "x", "ours"],
        ["1.00", "x", "ours"],
    ]
    assert "ours" not in table([seconds("peer", 0.03)])
