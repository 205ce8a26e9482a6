"""Predictions: from peaks that vendors print, by arithmetic that can be done by hand, and marked as what they are."""

import pytest

from benchmarks.kernels import prediction
from benchmarks.kernels.gpus import GPUS
from benchmarks.kernels.prediction import predict, work_in_float16, work_of_call
from pocketxl.kernels.sdxl import Call
from pocketxl.kernels.sdxl_layers import Concatenate, Conv, Linear

# Dense, in 1e12 operations a second, as printed in the whitepapers: float16 with float32 and float16 sums, int8.
PRINTED = {"rtx-3090": (71, 142, 284), "rtx-4090": (165.2, 330.3, 660.6), "rtx-5090": (209.5, 419, 838)}


@pytest.mark.parametrize("name", PRINTED)
def test_peaks_are_the_printed_ones(name: str) -> None:
    gpu = GPUS[name]
    found = (gpu.float16 / 1e12, gpu.float16_short / 1e12, gpu.int8 / 1e12)
    assert found == pytest.approx(PRINTED[name], rel=5e-3)


def test_a_large_linear_is_bound_by_arithmetic_and_a_thin_one_by_traffic() -> None:
    gpu = GPUS["rtx-4090"]
    large = work_of_call(Call(op="linear_w8a8", shape={"m": 4096, "n": 4096, "k": 4096, "bias": False}, count=1), gpu)
    assert large.seconds(gpu) == pytest.approx(2 * 4096**3 / (660.6e12 * 0.6), rel=1e-3)
    thin = work_of_call(Call(op="linear_w8a8", shape={"m": 16, "n": 4096, "k": 4096, "bias": False}, count=1), gpu)
    traffic = 4096 * 4096 + 16 * 4096 * 3 + 4 * (4096 + 16)  # weight; x in bytes, out in halves; scales
    assert thin.traffic == traffic
    assert thin.seconds(gpu) == pytest.approx(traffic / (1008e9 * 0.85))


def test_float16_is_counted_in_halves_and_short_sums_are_for_linears_only() -> None:
    gpu = GPUS["rtx-3090"]
    linear = Linear(role="q", rows=8192, k=4096, n=4096)
    assert work_in_float16(linear, gpu).traffic == 2 * (8192 * 4096 * 2 + 4096 * 4096)
    slow, fast = (work_in_float16(linear, gpu, short_sums=short).seconds(gpu) for short in (False, True))
    assert slow / fast == pytest.approx(2 * prediction.FLOAT16_SHORT / prediction.FLOAT16)
    conv = Conv(role="conv1", batch=1, height=64, width=64, c_in=640, c_out=640)
    assert work_in_float16(conv, gpu) == work_in_float16(conv, gpu, short_sums=True)
    beside = Concatenate(pixels=100, channels=(3, 5))
    assert work_in_float16(beside, gpu).seconds(gpu) == pytest.approx(2 * 2 * 800 / (936e9 * 0.85))


@pytest.mark.parametrize("name", GPUS)
def test_every_record_says_that_it_is_a_prediction_and_parts_add_up(name: str) -> None:
    records = predict(GPUS[name])
    assert {record.metric for record in records} == {"predicted_seconds"}
    assert all(record.system.startswith("prediction-") for record in records)
    assert len({(record.case, record.system) for record in records}) == len(records)
    for model in ("base", "refiner"):
        case = f"{name}_{model}_1024_b1"
        for system in ("prediction-w8a8", "prediction-float16"):
            of_system = {record.case: record.value for record in records if record.system == system}
            whole = of_system[case]
            parts = [value for other, value in of_system.items() if other.startswith(f"{case}_")]
            assert len(parts) >= 5
            assert sum(parts) == pytest.approx(whole)


def test_the_float16_model_gives_the_speed_that_people_report_on_a_3090() -> None:
    """4 steps a second with guidance at 1024², so two latents: 250 ms (ComfyUI, pull request 6453)."""
    seconds = 2 * sum(prediction.float16_seconds("base", GPUS["rtx-3090"]).values())
    assert seconds == pytest.approx(0.25, rel=0.1)
    short = 2 * sum(prediction.float16_seconds("base", GPUS["rtx-3090"], short_sums=True).values())
    assert short == pytest.approx(0.2, rel=0.1)
