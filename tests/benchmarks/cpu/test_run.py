"""What is recorded of a run on the processor: what each child told, and in words why there is nothing else."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cpu import __main__ as command
from benchmarks.cpu import systems as rows
from benchmarks.cpu.cases import CASES, cases
from benchmarks.cpu.job import MINIATURE, AbsentError, Job, Measured, Model
from benchmarks.cpu.run import in_a_process, run
from benchmarks.cpu.stable_diffusion_cpp import StableDiffusionCpp
from benchmarks.cpu.systems import REFERENCE, SYSTEMS, System
from benchmarks.journal import Journal
from benchmarks.table import table

UNET = cases(["unet_512_b1"], scale=8)
TOLD = asdict(Measured(seconds=2.0, load_seconds=3.0, peak_rss_bytes=10**9, calls=3))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(base=MINIATURE / "base", refiner=None, work=tmp_path, threads=1, scale=8)


def row(name: str, **more: Any) -> System:
    return System(name=name, module=".nothing", **more)


class Children:
    """Stand in for processes: each leaves a result, or says why not."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results, self.jobs = results, list[tuple[str, str]]()

    def __call__(self, job: Job) -> dict[str, Any]:
        self.jobs.append((job.deed, job.system))
        result = self.results[job.system]
        if isinstance(result, str):
            return {"absent": result}
        if job.deed == "prepare":
            return {}
        job.result.parent.mkdir(parents=True, exist_ok=True)
        np.save(job.result, np.asarray(result, np.float32))
        return TOLD


def test_time_memory_and_the_error_against_the_reference_which_goes_first(model: Model) -> None:
    children = Children({"other": [3.0, 4.5], REFERENCE: [3.0, 4.0]})
    journal = Journal("cpu", None, {})
    run(UNET, [row("other"), row(REFERENCE)], model, journal, children)
    assert children.jobs == [("prepare", REFERENCE), ("run", REFERENCE), ("prepare", "other"), ("run", "other")]
    found = {(r.system, r.metric): r.value for r in journal.records}
    assert found == {
        (REFERENCE, "seconds"): 2.0, (REFERENCE, "load_seconds"): 3.0, (REFERENCE, "peak_rss_bytes"): 1e9,
        ("other", "seconds"): 2.0, ("other", "load_seconds"): 3.0, ("other", "peak_rss_bytes"): 1e9,
        ("other", "relative_error"): 0.1,
    }  # fmt: skip
    assert journal.notes == []
    assert "other" in table(journal.records)


def test_the_first_picture_of_a_size_is_measured_of_a_system_that_keeps_what_it_compiles(model: Model) -> None:
    taken = {"first": 9.0, "run": 2.0}
    results = Children({"keeps": [1.0]})
    journal = Journal("cpu", None, {})
    picture = cases(["picture_512_4"], scale=8)
    run(
        picture,
        [row("keeps", keeps=True)],
        model,
        journal,
        lambda job: {**results(job), "seconds": taken[job.deed]} if job.deed in taken else {},
    )
    assert results.jobs == [("first", "keeps"), ("run", "keeps")]
    found = {r.metric: r.value for r in journal.records}
    assert (found["first_seconds"], found["seconds"]) == (9.0, 2.0)
    assert "the first of its size in 9.0 s" in table(journal.records)
    run(UNET, [row("keeps", keeps=True)], model, journal, results)
    assert results.jobs[2:] == [("prepare", "keeps"), ("run", "keeps")], "a forward is timed after a warm-up"


def test_what_is_absent_is_told_in_words_and_the_rest_goes_on(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "has_bfloat16", lambda: False)
    journal = Journal("cpu", None, {})
    systems = [
        row("packageless", needs=("json", "no_such_package")), row("half", bfloat16=True), row("broken"),
        row("pictures", kinds=frozenset({"picture"}), why="it has no networks"), row("good"), row("not finite"),
    ]  # fmt: skip
    results = {"broken": "RuntimeError: no such kernel", REFERENCE: [1.0], "good": [1.0], "not finite": [np.nan]}
    run(UNET, [*systems, row(REFERENCE)], model, journal, Children(results))
    assert journal.notes == [
        "packageless: left out, no_such_package is not installed (extra `bench`)",
        "half: left out, this processor has no bfloat16 instructions",
        "unet_512_b1 broken: absent, RuntimeError: no such kernel",
        "unet_512_b1 pictures: absent, it has no networks",
        "unet_512_b1 not finite: its result is not finite",
    ]
    assert {r.system for r in journal.records} == {REFERENCE, "good", "not finite"}


def test_without_a_reference_or_with_noise_of_its_own_there_is_no_error(model: Model) -> None:
    journal = Journal("cpu", None, {})
    run(UNET, [row("alone")], model, journal, Children({"alone": [1.0]}))
    run(UNET, [row("own", own_noise=True), row(REFERENCE)], model, journal, Children({"own": [1.0], REFERENCE: [1.0]}))
    assert not [r for r in journal.records if r.metric == "relative_error"]


def test_a_job_survives_the_command_line(model: Model) -> None:
    job = Job(deed="run", system="pocketxl-int8", case="vae_decode_1024", model=model)
    assert Job.decode(job.encode()) == job
    assert (job.of.name, job.of.size) == ("vae_decode_1024", 128)


def test_a_child_that_dies_is_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, -9, stdout="")

    monkeypatch.setattr(subprocess, "run", killed)
    found = in_a_process(Job(deed="run", system=REFERENCE, case="unet_512_b1", model=model))
    assert found == {"absent": "its process ended with status -9 and said nothing (no memory?)"}


def test_the_bundled_engine_in_a_process_of_its_own_without_torch(model: Model) -> None:
    """Its peak is that of the light install: nothing of a build or of a peer is imported."""
    job = Job(deed="run", system="pocketxl-int8", case="unet_512_b1", model=model)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'diffusers', 'onnx', 'safetensors'))); "
        f"sys.argv = ['child', {job.encode()!r}]; from benchmarks.cpu.child import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = Measured(**json.loads(done.stdout.splitlines()[-1]))
    assert told.calls >= 3
    assert 20e6 < told.peak_rss_bytes < 400e6
    assert np.load(job.result).shape == (1, 4, 8, 8)


def test_a_refiner_takes_part_in_guided_pictures_only(model: Model) -> None:
    both = Model(base=model.base, refiner=MINIATURE / "refiner", work=model.work, threads=1)
    parts = {case.name: (model.networks(case), both.networks(case)) for case in CASES}
    assert parts["picture_1024_30"] == (["base", "vae"], ["base", "refiner", "vae"])
    assert parts["picture_1024_4"] == (["base", "vae"], ["base", "vae"])
    assert parts["unet_512_b1"] == (["base"], ["base"])
    assert parts["vae_decode_512"] == (["vae"], ["vae"])


def test_stable_diffusion_cpp_says_what_it_cannot_do(model: Model) -> None:
    with pytest.raises(AbsentError, match="SDXL's own widths only"):
        StableDiffusionCpp(model=model).prepare("base")


def test_every_system_has_a_module_that_opens_it() -> None:
    for system in SYSTEMS:
        path = Path(rows.__file__).with_name(f"{system.module[1:]}.py")
        assert "def open_system(model: Model" in path.read_text(encoding="utf-8"), system.name


@pytest.mark.parametrize(("arguments", "said"), [
    (["--base", "{tmp}/nothing"], "is no diffusers folder: it has no unet/config.json"),
    (["--base", "{base}", "--work", "{tmp}/used"], "give another --work for these checkpoints"),
])  # fmt: skip
def test_wrong_folders_are_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "checkpoints.txt").write_text("/elsewhere/base", encoding="utf-8")
    filled = [part.format(tmp=tmp_path, base=MINIATURE / "base") for part in arguments]
    monkeypatch.setattr(sys, "argv", ["benchmarks.cpu", *filled])
    monkeypatch.setattr(command, "run", lambda *everything: pytest.fail("it ran"))
    assert command.main() == 2
    assert said in capsys.readouterr().err
