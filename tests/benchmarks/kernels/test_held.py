"""Predictions are as near to what an H100 took as they say."""

from collections import defaultdict

import pytest

from benchmarks.kernels.held import Held, first_kernels, forwards, hopper_kernels, peers

from ...tolerances import PREDICTED_FLOAT16, PREDICTED_FORWARD, PREDICTED_WAVES


def test_whole_forwards_are_within_their_tolerance() -> None:
    found = list(forwards())
    assert [one.group for one in found] == ["forward"] * 4 + ["triton_forward"]
    for one in found:
        limit = PREDICTED_FORWARD if one.group == "forward" else PREDICTED_WAVES
        assert one.predicted == pytest.approx(one.measured, rel=limit), one.case


def test_the_float16_model_is_faster_than_any_program_that_was_measured() -> None:
    compiled, eager = peers()
    assert compiled.predicted == pytest.approx(compiled.measured, rel=PREDICTED_FLOAT16)
    assert compiled.predicted < compiled.measured < eager.measured


def test_every_op_of_the_network_is_held_by_itself() -> None:
    groups: defaultdict[str, list[Held]] = defaultdict(list)
    for one in (*first_kernels(), *hopper_kernels()):
        groups[one.group].append(one)
    assert {f"triton_{op}" for op in ("linear_w8a8", "geglu_linear_w8a8", "conv_w8a8", "attention")} <= set(groups)
    assert {"hopper_linear_w8a8", "hopper_geglu_linear_w8a8"} <= set(groups)
    assert not any("w4" in group for group in groups)
    for one in (one for of_group in groups.values() for one in of_group):
        assert 1e-6 < one.measured < 1e-3


def test_an_error_is_a_share_of_what_was_measured() -> None:
    assert Held(case="x", group="forward", predicted=3.0, measured=4.0).error == -0.25
