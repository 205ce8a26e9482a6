"""`pocketxl plan`: the same limits as `generate`, nothing loaded, the peak that the planner says, and cards it fits."""

from pathlib import Path

import onnxruntime
import pytest

from pocketxl.engine.memory.sizes import format_bytes
from pocketxl.engine.pipeline import Pipeline

from ...fixtures.command_line import run
from ...fixtures.rtx_on_host import rtx_engine


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
    def taken(*options: str) -> int:  # in all phases: the peak alone may be the VAE's, which none of this changes
        (event,) = run(capsys, "plan", tiny_engine, "--json", *options).events()
        return sum(int(phase["total_bytes"]) for phase in event["phases"])

    one = taken("--prompt", "a")
    assert taken("--prompt", "a", "--prompt", "b", "--prompt", "c") > one
    assert taken("--prompt", "cat " * 100) > one
    assert taken("--guidance-scale", "1") < one
    assert taken("--sampler", "heun", "--no-refiner") < one
    refused = {("--sampler", "magic"): "euler_a", ("--prompt", "(a:99)"): "weight", ("--eta", "1"): "ddim"}
    for wrong, says in refused.items():
        assert says in run(capsys, "plan", tiny_engine, *wrong).complaint()


@pytest.fixture(scope="module")
def for_cards(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rtx_engine(tiny_engine, tmp_path_factory.mktemp("rtx"))


def test_an_engine_for_cards_says_what_becomes_of_it_on_usual_ones(
    for_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "plan", for_cards, "--width", "128").out
    for card in ("4 GB", "6 GB", "8 GB", "12 GB"):
        (line,) = (line for line in shown.splitlines() if line.startswith(card))
        assert line.split()[4:6] == ["yes", "together"]
    assert "assumed: driver, desktop and browser take 768 MiB" in shown
    (event,) = run(capsys, "plan", for_cards, "--width", "128", "--json").events()
    assert event["assumed_taken_bytes"] == 768 << 20
    assert [card["free_bytes"] for card in event["cards"]] == [(size << 30) - (768 << 20) for size in (4, 6, 8, 12)]
    assert {(card["fits"], card["unets"], card["peak_bytes"]) for card in event["cards"]} == {
        (True, "together", event["peak_bytes"])
    }


def test_a_card_s_free_memory_is_planned_for(for_cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (least,) = run(capsys, "plan", for_cards, "--device-memory", "1", "--json").events()
    (card,) = least["cards"]
    assert (card["fits"], card["unets"], card["largest"]) == (False, "in turns", None)
    assert least["keep"] == card["keep"] == []
    assert least["peak_bytes"] == card["peak_bytes"] > 300 << 20
    shown = run(capsys, "plan", for_cards, "--device-memory", "1MiB").out
    assert "more than the 1 MiB that are free" in shown
    assert "assumed" not in shown
    stay = least["unets_stay_bytes"]
    (both,) = run(capsys, "plan", for_cards, "--device-memory", stay, "--json").events()
    assert (both["cards"][0]["unets"], both["peak_bytes"], both["unets_stay_bytes"]) == ("together", stay, stay)
    told = f"from picture to picture where it has {format_bytes(stay)} free"
    assert f"the U-Nets of base and refiner stay on the card {told}" in shown
    (whole,) = run(capsys, "plan", for_cards, "--device-memory", "6GiB", "--json").events()
    assert (whole["cards"][0]["fits"], whole["assumed_taken_bytes"]) == (True, None)


def test_cards_are_asked_of_engines_for_cards_alone(
    tiny_engine: Path, for_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (event,) = run(capsys, "plan", tiny_engine, "--json").events()
    assert (event["cards"], event["unets_stay_bytes"]) == ([], None)
    refused = {
        (tiny_engine, "--device-memory", "6GiB"): "give --budget",
        (for_cards, "--device-memory", "6GiB", "--budget", "4GiB"): "give one or the other",
        (for_cards, "--device-memory", "six"): "4GiB",
    }
    for arguments, says in refused.items():
        shown = run(capsys, "plan", *arguments)
        assert (shown.status, says in shown.complaint()) == (2, True)
