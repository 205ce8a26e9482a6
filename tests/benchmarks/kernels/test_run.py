"""The benchmark's own logic on a processor: which cases, who is timed, what is recorded; no speed is claimed here."""

import json
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import pytest

from benchmarks import report
from benchmarks.kernels import check as checking
from benchmarks.kernels import run as running
from benchmarks.kernels import systems
from benchmarks.kernels.cases import cases, name
from benchmarks.kernels.peaks import Peaks
from benchmarks.kernels.peers import peers
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.execute import execute
from pocketxl.kernels.sdxl import OPS, Call, launch_plan

LINEAR = Call(
    op="linear_w8a8", shape={"m": 5, "n": 32, "k": 48, "bias": True, "residual": True, "dtype": "int8"}, count=3
)
CONV = Call(
    op="conv_w8a8",
    shape={
        "b": 1, "h": 4, "w": 6, "c": 16, "c2": 0, "n": 16, "kernel": 3, "stride": 2, "time": False,
        "residual": False,
    },
    count=1,
)  # fmt: skip
ATTENTION = Call(op="attention", shape={"batch": 1, "m": 70, "n": 77, "heads": 1}, count=1)
ATTENTION_INT8 = Call(op="attention_int8", shape=ATTENTION.shape, count=1)
NORM = Call(op="add_layer_norm_quantize", shape={"m": 3, "c": 64, "eps": 1e-5, "dtype": "int8"}, count=1)
GROUP = Call(
    op="group_norm_silu_quantize",
    shape={"b": 1, "h": 4, "w": 4, "c": 64, "groups": 32, "eps": 1e-6, "silu": False},
    count=1,
)
ROWS = Call(op="quantize_per_token", shape={"m": 3, "c": 64, "dtype": "int8"}, count=1)
SMALL = (LINEAR, CONV, ATTENTION, ATTENTION_INT8, NORM, GROUP, ROWS)
SM89 = architecture(89)


class Clock:
    """A stopwatch that runs the work and says how long it took: a second each time."""

    def record(self, work: Sequence[Callable[[], object]]) -> Callable[[], object]:
        return lambda: [item() for item in work]

    def seconds(self, replay: Callable[[], object]) -> float:
        replay()
        return 1.0


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "DEVICE", "cpu")


def test_the_quick_list_has_every_op_and_the_full_one_every_call() -> None:
    quick, full = cases(quick=True), cases(quick=False)
    assert {call.op for call in quick} == {call.op for call in full} == set(OPS)
    names = [name(call) for call in full]
    assert len(set(names)) == len(names)
    assert {name(call) for call in quick} <= set(names)
    assert len(quick) <= 2 * len(OPS)


def test_a_run_that_is_cut_short_has_had_every_op_once() -> None:
    assert {call.op for call in cases(quick=False)[: len(OPS)]} == set(OPS)


def test_only_the_ops_that_were_asked_for() -> None:
    assert {call.op for call in cases(quick=False, ops=["attention"])} == {"attention"}


def test_names_say_the_shape() -> None:
    assert name(LINEAR) == "linear_w8a8_m5_n32_k48_bias_residual_dtypeint8"


@pytest.mark.parametrize("call", SMALL, ids=lambda call: call.op)
def test_our_ops_pass_the_check(call: Call) -> None:
    made = launch_plan(call, SM89)
    assert 0 <= checking.check(call, made, device="cpu") < checking.ALLOWED_INT8_ATTENTION


def test_a_wrong_op_is_named_with_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "execute", lambda *given: {n: v * 1.01 for n, v in execute(*given).items()})
    with pytest.raises(checking.WrongResultError, match=r"linear_w8a8 is wrong on .*'m': 5.*relative error 0.0099"):
        checking.check(LINEAR, launch_plan(LINEAR, SM89), device="cpu")


def test_a_nan_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "execute", lambda *given: {n: v * float("nan") for n, v in execute(*given).items()})
    with pytest.raises(checking.WrongResultError, match="nan"):
        checking.check(LINEAR, launch_plan(LINEAR, SM89), device="cpu")


@pytest.mark.parametrize("call", SMALL, ids=lambda call: call.op)
def test_peers_compute_the_layer_s_shape(call: Call) -> None:
    """Peers that a processor can run give an output of our output's size; which of them cannot is not asked here."""
    made = launch_plan(call, SM89)
    expected = next(iter(made.outputs.values()))
    ran = 0
    for system, make in peers(call, SM89).items():
        if "compile" in system:
            continue
        work = make(0)
        try:
            out: Any = work()
        except (RuntimeError, NotImplementedError):
            continue  # no such back end on a processor
        out = out[1] if isinstance(out, tuple) else out
        assert out.numel() == prod(expected.shape), system
        ran += 1
    assert ran or call is ROWS


def test_quantization_is_part_of_the_linear_s_second_time() -> None:
    work = systems.ours_with_quantization(LINEAR, SM89)(0)
    out: Any = work()
    assert out["out"].shape == (5, 32)
    assert out["out"].isfinite().all()


def test_a_system_that_fails_is_absent_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(seed: int) -> Callable[[], object]:
        raise NotImplementedError("no such back end\nand more")

    records = running.time_systems("case", {"good": lambda seed: lambda: seed, "bad": broken}, Clock(), copies=4)
    assert [(r.case, r.system, r.metric, r.value, r.unit) for r in records] == [("case", "good", "seconds", 0.25, "s")]
    assert "case bad: absent, NotImplementedError: no such back end\n" in capsys.readouterr().err


def test_a_case_records_time_error_and_share_of_the_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "check", lambda call, made: 1e-4)
    monkeypatch.setattr(running, "peers", lambda call, arch: {"torch-fp16": lambda seed: lambda: None})
    made = launch_plan(LINEAR, architecture(86))
    peaks = Peaks(operations={"int8": 1e6}, bandwidth=1e12)
    records = running.time_case(LINEAR, made, architecture(86), Clock(), peaks, cache=0)
    assert {(r.system, r.metric) for r in records} == {
        ("pocketxl", "seconds"), ("pocketxl+quantize", "seconds"), ("torch-fp16", "seconds"),
        ("pocketxl", "relative_error"), ("pocketxl", "roofline_share"),
    }  # fmt: skip
    share = next(r for r in records if r.metric == "roofline_share")
    assert share.value == pytest.approx(2 * 5 * 32 * 48 / 1e6 / 0.5)  # two copies in one second


def test_what_bounds_a_plan_is_the_slower_of_arithmetic_and_traffic(capsys: pytest.CaptureFixture[str]) -> None:
    made = launch_plan(LINEAR, SM89)
    assert Peaks(operations={"int8": 1e3}, bandwidth=1e15).seconds(made) == pytest.approx(2 * 5 * 32 * 48 / 1e3)
    assert Peaks(operations={"int8": 1e15}, bandwidth=1.0).seconds(made) == made.traffic
    assert Peaks(operations={}, bandwidth=1.0).seconds(made) is None
    assert "no measured peak of int8" in capsys.readouterr().err


def test_the_environment_takes_more(capsys: pytest.CaptureFixture[str]) -> None:
    report.finish("kernels", [], extra={"gpu": "G", "driver": "1"})
    data = json.loads(capsys.readouterr().out)
    assert data["environment"]["gpu"] == "G"
    assert "cpu" in data["environment"]
