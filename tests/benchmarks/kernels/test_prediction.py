"""Records of predictions: marked as what they are, and their parts add up."""

import json

import pytest

from benchmarks.kernels.__main__ import roofline
from benchmarks.kernels.gpus import GPUS
from benchmarks.kernels.held import Held
from benchmarks.kernels.prediction import errors, predict


@pytest.mark.parametrize("name", GPUS)
def test_every_record_says_that_it_is_a_prediction_and_parts_add_up(name: str) -> None:
    records = list(predict(GPUS[name]))
    assert all(record.metric.startswith("predicted_") for record in records)
    assert all(record.system.startswith("prediction-") for record in records)
    assert len({(record.case, record.system, record.metric) for record in records}) == len(records)
    for case in (f"{name}_{model}_1024_b{batch}" for model in ("base", "refiner") for batch in (1, 2)):
        wholes = {}
        for system in ("prediction-pocketxl-int8", "prediction-pocketxl-int4", "prediction-float16"):
            of_system = {r.case: r.value for r in records if (r.system, r.metric) == (system, "predicted_seconds")}
            wholes[system] = of_system[case]
            parts = [value for other, value in of_system.items() if other.startswith(f"{case}_")]
            assert len(parts) >= 5
            assert sum(parts) == pytest.approx(wholes[system])
        ratios = {r.system: r.value for r in records if (r.case, r.metric) == (case, "predicted_speedup_over_float16")}
        assert ratios == {
            system: pytest.approx(wholes["prediction-float16"] / seconds)
            for system, seconds in wholes.items()
            if system != "prediction-float16"
        }


def test_errors_are_told_one_by_one_and_for_each_group() -> None:
    found = [
        Held(case="a", group="forward", predicted=3.0, measured=4.0),
        Held(case="b", group="forward", predicted=5.0, measured=4.0),
        Held(case="c", group="float16", predicted=1.0, measured=2.0),
    ]
    records = {(record.case, record.metric): record for record in errors(found)}
    assert records["held_forward_a", "relative_error"].value == -0.25
    assert records["held_forward", "mean_relative_error"].value == 0
    assert abs(records["held_forward", "largest_relative_error"].value) == 0.25
    assert records["held_float16_c", "predicted_seconds"].system == "prediction-float16"


def test_the_command_ends_with_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline("rtx-4090") == 0
    out, err = capsys.readouterr()
    document = json.loads(out.splitlines()[-1])
    assert {record["case"].split("_")[0] for record in document["records"]} == {"rtx-4090"}
    assert "no measurement" in document["environment"]["notes"][0]
    assert err.startswith("rtx-4090_base_1024_b1 prediction-pocketxl-int8 predicted_speedup_over_float16: ")
