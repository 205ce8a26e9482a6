"""`bands.json`: equal when read back, and refused where it contradicts itself."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pocketxl.engine.bands.program import FORMAT, BandProgram, BandValue, Norm, Read, Segment
from pocketxl.engine.bands.read import from_json, to_json
from pocketxl.engine.errors import IncompatibleError, IntegrityError

PROGRAM = BandProgram(
    input="x",
    output="z",
    values={
        "x": BandValue(dtype="float32", channels=4, scale=1),
        "y": BandValue(dtype="uint8", channels=8, scale=1, zero=128, norm=Norm(groups=4, epsilon=1e-6)),
        "z": BandValue(dtype="float32", channels=3, scale=2),
    },
    segments=(
        Segment(file="0.onnx", value="y", reads=(Read(value="x", halo=1),)),
        Segment(file="1.onnx", value="z", reads=(Read(value="y", halo=1), Read(value="x", halo=0)), norm="y"),
    ),
)


def test_it_is_read_as_it_was_written() -> None:
    assert from_json(to_json(PROGRAM)) == PROGRAM


def test_a_segment_s_bands_are_counted_in_its_coarsest_rows() -> None:
    assert [PROGRAM.scale(segment) for segment in PROGRAM.segments] == [1, 1]
    assert PROGRAM.last_reader() == {"x": 1, "y": 1}


def test_rows_above_a_band_are_read_unless_its_segment_halves() -> None:
    assert [(r.above, r.halo) for r in (Read(value="x", halo=1), Read(value="x", halo=1, downward=True))] == [
        (1, 1),
        (0, 1),
    ]
    assert "downward" not in to_json(PROGRAM)  # engines of before have none
    assert PROGRAM.picture == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["values"]["x"].update(dtype="int8"), "dtype is 'int8'"),
        (lambda d: d["values"]["x"].update(channels=0), "0 channels"),
        (lambda d: d["values"]["x"].update(scale=65), "scale 65"),
        (lambda d: d["values"]["x"].update(zero=1), "zero is 1"),
        (lambda d: d["values"]["y"].update(zero=256), "zero is 256"),
        (lambda d: d["values"]["y"]["norm"].update(groups=3), "3 groups over 8 channels"),
        (lambda d: d["values"]["y"]["norm"].update(epsilon=0.0), "epsilon 0.0"),
        (lambda d: d["values"].pop("y"), "gives 'y'"),
        (lambda d: d["values"].update(w=d["values"]["x"]), "no segment gives w"),
        (lambda d: d.update(output="w"), "none of the values"),
        (lambda d: d.update(output="x"), "no segment gives x"),
        (lambda d: d["segments"].reverse(), "those that are there"),
        (lambda d: d["segments"][1].update(value="y"), "there already"),
        (lambda d: d["segments"][1].update(norm="x"), "applies a norm of 'x'"),
        (lambda d: d["segments"][0].update(reads=[]), "reads"),
        (lambda d: d["segments"][0]["reads"][0].update(halo=2), "halo"),
        (lambda d: d["segments"][1]["reads"][1].update(downward=True), "halo"),
        (lambda d: d["segments"][0].update(extra=1), "extra"),
    ],
)
def test_what_no_build_has_written_is_refused(change: Callable[[Any], object], complaint: str) -> None:
    data = json.loads(to_json(PROGRAM))
    change(data)
    with pytest.raises(IntegrityError, match=complaint):
        from_json(json.dumps(data))


def test_another_format_says_what_to_do() -> None:
    data = json.loads(to_json(PROGRAM))
    with pytest.raises(IncompatibleError, match="install a newer pocketxl"):
        from_json(json.dumps({**data, "format": FORMAT + 1}))
    with pytest.raises(IncompatibleError, match="build the engine again"):
        from_json(json.dumps({**data, "format": "1"}))
    with pytest.raises(IntegrityError, match="not the JSON"):
        from_json("{")
