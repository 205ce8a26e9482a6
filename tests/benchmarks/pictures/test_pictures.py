"""Small pictures of the miniature on the processor, through all of the benchmark but the GPU."""

import json
from pathlib import Path

import numpy as np
import pytest

import pocketxl.engine.miniature
import pocketxl.export.miniature
from benchmarks.pictures.__main__ import main
from benchmarks.pictures.cases import CASES, TINY, Case, chosen, prompt
from benchmarks.pictures.stages import Stages, measure

ENGINE = Path(pocketxl.engine.miniature.__file__).parent / "int8"
WEIGHTS = Path(pocketxl.export.miniature.__file__).parent / "weights"


class Counted:
    """A system whose n-th run takes n seconds, and n gigabytes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def make(self, case: Case, text: str, seed: int) -> Stages:
        self.texts.append(text)
        n = float(len(self.texts))
        pictures = np.full((case.images, 2, 2, 3), n)
        return Stages(encode=n, first_step=2 * n, steps=(3 * n, 4 * n), decode=5 * n, whole=6 * n, pictures=pictures)

    def in_use(self) -> int:
        return len(self.texts) << 30

    def planned(self, case: Case) -> int:
        return 3 << 30


def test_runs_behind_the_first_are_told_by_their_medians_and_each_has_a_text_of_its_own() -> None:
    maker, case = Counted(), Case(name="c", side=8, steps=3, guidance=1.0, images=2)
    found, pictures = measure(maker, case, before=1 << 30)
    assert len(set(maker.texts)) == len(maker.texts) == 4
    assert found["seconds"] == 18, "of the second to fourth run"
    assert (found["encode_seconds"], found["first_step_seconds"], found["decode_seconds"]) == (3, 6, 15)
    assert found["step_seconds"] == 10.5
    assert found["pictures_per_second"] == pytest.approx(2 / 18)
    assert found["peak_device_bytes"] == 3 << 30
    assert found["planned_device_bytes"] == 3 << 30
    assert pictures.shape == (2, 2, 2, 3)
    assert (pictures == 4).all()


def test_every_case_has_its_name_once() -> None:
    names = [case.name for case in (*CASES, *TINY)]
    assert len(set(names)) == len(names)
    assert chosen(["picture_512_4"], tiny=False) == (CASES[-1],)
    assert chosen([], tiny=True) == TINY
    assert prompt(0) != prompt(1)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--engine", str(ENGINE)]) == 2
    assert "--tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"), [([], "nothing to measure"), (["--engine", "nowhere"], "nowhere is not an engine folder")]
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--tiny", *arguments])
    assert end.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_ours_is_diffusers_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """8-bit weights and inputs are what lies between."""
    folders = ["--base", str(WEIGHTS / "base"), "--refiner", str(WEIGHTS / "refiner"), "--peers", "diffusers"]
    assert main(["--tiny", "--engine", str(ENGINE), *folders]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = {(r["case"], r["system"], r["metric"]): r["value"] for r in last["records"]}
    for case in TINY:
        assert found[case.name, "diffusers", "psnr_db"] > 30
        for system in ("pocketxl-int8-cpu", "diffusers"):
            whole = found[case.name, system, "seconds"]
            assert 0 < found[case.name, system, "encode_seconds"] < whole
            assert 0 < found[case.name, system, "decode_seconds"] < whole
