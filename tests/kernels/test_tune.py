"""What tuning decides without a GPU: which candidates, which rows, and a table that is never half written."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from pocketxl.kernels import tune
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.configs import FOLDER, Row, lookup, trying
from pocketxl.kernels.errors import KernelError
from pocketxl.kernels.linear.plan import plan_linear_w8a8
from pocketxl.kernels.sdxl import Call, calls, launch_plan, vae_calls

SM86 = architecture(86)
CONFIG = {"BLOCK_M": 128, "BLOCK_N": 16, "GROUP_M": 8, "num_warps": 8, "num_stages": 3}


def row(rows: int | None = None, block: int = 128, **shape: int) -> Row:
    return Row(sm=86, shape=shape, rows=rows, config={"BLOCK_M": block})


def test_candidates_begin_with_the_table_s_own_and_never_repeat() -> None:
    found = list(tune.candidates(CONFIG))
    assert found[0] == CONFIG
    assert len({tuple(config.items()) for config in found}) == len(found)


def test_candidates_differ_by_one_step_in_two_numbers_at_most() -> None:
    for config in tune.candidates(CONFIG):
        changed = {name: value for name, value in config.items() if value != CONFIG[name]}
        assert len(changed) <= 2
        assert "GROUP_M" not in changed
        for name, value in changed.items():
            assert value in ((2, 4) if name == "num_stages" else (CONFIG[name] // 2, CONFIG[name] * 2))


def test_candidates_stay_inside_what_kernels_take() -> None:
    values = [(config["BLOCK_N"], config["num_warps"], config["BLOCK_M"]) for config in tune.candidates(CONFIG)]
    assert {n for n, _, _ in values} == {16, 32}  # 8 is no tile of a matrix instruction
    assert {warps for _, warps, _ in values} == {4, 8}
    assert {m for _, _, m in values} == {64, 128, 256}


def test_numbers_that_are_no_tile_are_tried_too() -> None:
    found = [config["STEPS"] for config in tune.candidates({"STEPS": 1, "num_warps": 4})]
    assert sorted(set(found)) == [1, 2]


def test_a_trial_replaces_the_table_inside_and_nowhere_else() -> None:
    tried = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 64, "GROUP_M": 4, "num_warps": 2, "num_stages": 2}
    with trying("linear_w8a8", tried) as trial:
        made = plan_linear_w8a8(m=100, n=640, k=320, arch=SM86)
    assert made.launches[0].constants["BLOCK_M"] == 32
    assert made.launches[0].grid == (4 * 20, 1, 1)
    [(rows, shape)] = trial.asked
    assert rows == 100
    assert shape.items() >= {"k": 320, "n": 640}.items()
    assert plan_linear_w8a8(m=100, n=640, k=320, arch=SM86).launches[0].constants != made.launches[0].constants


def test_cases_are_what_the_calls_ask_of_one_table() -> None:
    found = tune.cases("linear_w8a8", SM86, calls("base", height=512, width=512, batch=2))
    assert {(case.rows, dict(case.shape)["k"], dict(case.shape)["n"]) for case in found} == {
        (2048, 640, 640), (2048, 640, 1920), (2048, 2560, 640), (512, 1280, 1280), (512, 1280, 3840), (512, 5120, 1280),
    }  # fmt: skip
    for case in found:
        assert case.call.op == "linear_w8a8"
        assert case.config == lookup("linear_w8a8", SM86, case.rows, **dict(case.shape))


def test_the_vae_s_attention_has_two_tables_and_what_does_not_fit_the_other_is_not_tried() -> None:
    found = vae_calls(height=1024, width=1024)
    [score] = tune.cases("attention_wide", SM86, found)
    [mix] = tune.cases("attention_wide_mix", SM86, found)
    assert score.rows == mix.rows == 128 * 128
    with trying("attention_wide_mix", {**mix.config, "BLOCK_K": 256}), pytest.raises(KernelError, match="whole steps"):
        launch_plan(mix.call, SM86)


def test_merging_replaces_equal_keys_and_keeps_the_rest_in_order() -> None:
    old = [row(64), row(), row(1024, k=640, n=640), Row(sm=89, shape={}, rows=None, config={"BLOCK_M": 7})]
    new = [row(1024, 256, n=640, k=640), row(512, 64, k=640, n=640)]
    merged = tune.merge(old, new)
    assert [(r.sm, dict(r.shape), r.rows, r.config["BLOCK_M"]) for r in merged] == [
        (86, {}, 64, 128),
        (86, {}, None, 128),
        (86, {"k": 640, "n": 640}, 512, 64),
        (86, {"k": 640, "n": 640}, 1024, 256),
        (89, {}, None, 7),
    ]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_table_survives_being_written(path: Path, tmp_path: Path) -> None:
    rows = tune.read_table(path)
    assert rows
    tune.write_table(tmp_path / "t.json", rows)
    assert tune.read_table(tmp_path / "t.json") == rows
    assert len((tmp_path / "t.json").read_text().splitlines()) == len(rows) + 2


def test_no_table_is_no_rows(tmp_path: Path) -> None:
    assert tune.read_table(tmp_path / "none.json") == []


def test_a_write_that_fails_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    tune.write_table(path, [row(64)])

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        tune.write_table(path, [row(128)])
    assert tune.read_table(path) == [row(64)]
    assert [item.name for item in tmp_path.iterdir()] == ["t.json"]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    tune.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "torch sees none; --dry-run"),
        (["--dry-run"], "name an architecture"),
        (["--dry-run", "--sm", "75"], "TensorRT"),
        (["--dry-run", "--sm", "86", "--size", "1024"], "WIDTHxHEIGHT"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(KernelError, match=message):
        tune.run(parsed("--op", "linear_w8a8", *arguments))


def test_what_was_measured_is_written_case_by_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop around measuring: a better configuration becomes a row at once, the table's own does not."""
    better = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64, "GROUP_M": 8, "num_warps": 4, "num_stages": 3}
    asked: list[tune.Case] = []

    def fake(case: tune.Case, arch: Any, jobs: int) -> tune.Outcome:
        asked.append(case)
        best = better if dict(case.shape)["k"] == 640 else case.config
        return tune.Outcome(case=case, best=best, seconds=1e-5, before=2e-5, tried=9)

    monkeypatch.setattr(tune, "tune_case", fake)
    monkeypatch.setattr(tune, "_architecture", lambda sm, needs_gpu: SM86)
    path = tmp_path / "t.json"
    assert tune.run(parsed("--op", "linear_w8a8", "--model", "base", "--size", "512x512", "--table", str(path))) == 0
    written = json.loads(path.read_text())
    assert {(r["sm"], r["rows"], r["shape"]["k"]) for r in written} == {(86, 2048, 640)}
    assert all(r["config"] == better for r in written)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(asked)
    assert lines[0].startswith("linear_w8a8 rows=2048 fp8=0 k=640")
    assert "20.0 -> 10.0 us (9 tried)" in lines[0]


def test_a_table_that_cannot_be_written_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_architecture", lambda sm, needs_gpu: SM86)
    monkeypatch.setattr(tune, "calls", None)  # whatever comes after would use it
    for path, named in ((tmp_path / "missing" / "t.json", "missing"), (tmp_path, f"is a folder.*{tmp_path.name}")):
        with pytest.raises(OSError, match=named):
            tune.run(parsed("--op", "linear_w8a8", "--table", str(path)))


def test_outputs_that_differ_disqualify() -> None:
    import torch

    truth = {"out": torch.tensor([1.0, -100.0])}
    assert tune._same({"out": torch.tensor([1.5, -101.0])}, truth)
    assert not tune._same({"out": torch.tensor([4.0, -100.0])}, truth)
    assert not tune._same({"out": torch.tensor([float("nan"), -100.0])}, truth)


def test_a_call_is_planned_with_the_tried_configuration() -> None:
    call = Call(op="linear_w8a8", shape={"m": 64, "n": 64, "k": 64}, count=1)
    case = tune.cases("linear_w8a8", SM86, [call])[0]
    assert case.call is call
    assert tune.cases("geglu_linear_w8a8", SM86, [call]) == []
