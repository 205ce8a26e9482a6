"""`pocketxl plan`: the same limits as `generate`, nothing loaded, and the peak that the planner says."""

from pathlib import Path

import onnxruntime
import pytest

from pocketxl.engine.pipeline import Pipeline

from ...fixtures.command_line import run


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (("--width", "63"), 2, "56 or 64"),
        (("--width", "-8"), 2, "width is -8"),
        (("--width", "0"), 2, "width is 0"),
        (("--steps", "-3"), 2, "1 to 1000"),
        (("-n", "0"), 2, "1 to 64"),
        (("--budget", "x"), 2, "4GiB"),
        (("--budget", "1MB"), 4, "raise the budget"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_bad_values_are_refused_as_generate_does(
    options: tuple[str, ...], status: int, says: str, tiny_engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "plan", tiny_engine, *options)
    assert shown.status == status
    assert says in shown.complaint()


def test_it_prints_the_planners_peak_and_loads_nothing(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("loaded"))
    expected = Pipeline.load(tiny_engine).plan("", width=128, num_inference_steps=30)
    (event,) = run(capsys, "plan", tiny_engine, "--width", "128", "-n", "2", "--json").events()
    assert (event["width"], event["height"], event["peak_bytes"]) == (128, 64, expected.peak_bytes)
    assert (event["images"], event["prompts"], event["pool"]) == (1, 1, "host")  # pictures are made one by one
    assert [row["phase"] for row in event["phases"]] == [phase.name for phase in expected.phases]
    assert "predicted peak for 128x64" in run(capsys, "plan", tiny_engine, "--width", "128").out


def test_it_takes_what_a_call_takes(tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def peak(*options: str) -> int:
        (event,) = run(capsys, "plan", tiny_engine, "--json", *options).events()
        return int(event["peak_bytes"])

    one = peak("--prompt", "a")
    assert peak("--prompt", "a", "--prompt", "b", "--prompt", "c") > one
    assert peak("--prompt", "cat " * 100) > one
    assert peak("--guidance-scale", "1") < one
    assert peak("--sampler", "heun", "--no-refiner") < one
    refused = {("--sampler", "magic"): "euler_a", ("--prompt", "(a:99)"): "weight", ("--eta", "1"): "ddim"}
    for wrong, says in refused.items():
        assert says in run(capsys, "plan", tiny_engine, *wrong).complaint()
