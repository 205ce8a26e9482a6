"""`pocketxl doctor`: one screen on any machine, and the same as data."""

import pytest

from pocketxl.engine.commands import doctor
from pocketxl.engine.commands import main as cli
from pocketxl.engine.commands.doctor import WIDTH
from pocketxl.engine.doctor.machine import Gpu

from ...fixtures.command_line import run

CARD = Gpu(
    name="NVIDIA GeForce RTX 4060", compute_capability="8.9", memory_bytes=8 << 30, free_bytes=7 << 30,
    driver="580.65.06", cuda="13.0",
)  # fmt: skip
NO_CARD = "engines for NVIDIA GPUs need one and its driver, and libcuda.so.1 is not here; install the driver"


@pytest.fixture(autouse=True)
def only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_commands", lambda: {"doctor": doctor.command})


def test_one_screen_without_a_card(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "gpu", lambda: NO_CARD)
    shown = run(capsys, "doctor")
    assert (shown.status, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert len(lines) <= 26
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[0] for line in lines[:4]] == ["pocketxl", "processor", "threads", "memory"]
    assert "gpu              none that can be used" in lines
    assert "cpu run          yes" in lines
    assert "rtx run          no" in lines
    said = " ".join(shown.out.split())
    assert said.count("install the driver") == 1, "what is missing for several is said once"
    assert "cuda run no, as for rtx run" in said


def test_a_card_is_told_with_the_target_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "gpu", lambda: CARD)
    said = " ".join(run(capsys, "doctor").out.split())
    assert "RTX 4060, compute capability 8.9, 8.00 GiB, 7.00 GiB free; driver 580.65.06, CUDA 13.0" in said
    assert "--target rtx-sm89" in said


def test_the_same_as_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "gpu", lambda: CARD)
    (event,) = run(capsys, "doctor", "--json").events()
    assert event["event"] == "doctor"
    assert event["gpu"]["compute_capability"] == "8.9"
    assert event["gpu_problem"] is None
    assert {(a["target"], a["deed"]): a["possible"] for a in event["abilities"]}[("cpu", "run")] is True
    assert event["host"]["cores"] >= 1
    assert "core" in event["host"]["cores_reason"]
    monkeypatch.setattr(doctor, "gpu", lambda: NO_CARD)
    (event,) = run(capsys, "doctor", "--json").events()
    assert event["gpu"] is None
    assert event["gpu_problem"] == NO_CARD
    assert {package["name"] for package in event["packages"]} >= {"numpy", "onnxruntime"}
