"""`slots.json`: written and read again, what is refused, and the program that it makes of another."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.program.program import Call, Operand, Option, Program, ValueSpec
from pocketxl.engine.program.slots import RANKS, Slot, opened, read_slots, slots_text, with_rank

from ...fixtures.small_programs import brief_program

PROGRAM = brief_program()[0]
AT = next(at for at, call in enumerate(PROGRAM.calls) if call.op == "linear_w8a8")
OWN = PROGRAM.calls[AT]


def call(op: str, shape: dict[str, int | str | bool], inputs: dict[str, str], out: str) -> Call:
    return Call(
        op=op, layer="q", shape=shape, inputs={n: Operand(name=v) for n, v in inputs.items()}, outputs={"out": out}
    )


SLOT = Slot(
    layers=("q",),
    at=AT,
    calls=(
        call(
            "linear_w8a8",
            {"m": "rows0", "n": "ranks1", "k": 32, "bias": False},
            {"x": "q.0", "x_scale": "s.0", "weight": "down", "weight_scale": "scale"},
            "inner",
        ),
        replace(OWN, outputs={"out": "plain"}),
        call(
            "linear_f16",
            {"m": "rows0", "n": 64, "k": "ranks1", "bias": False, "residual": True},
            {"x": "inner", "weight": "up", "residual": "plain"},
            OWN.outputs["out"],
        ),
    ),
    down=ValueSpec(name="down", shape=("ranks1", 32), dtype="int8"),
    down_scale=ValueSpec(name="scale", shape=("ranks1",), dtype="float32"),
    up=ValueSpec(name="up", shape=(64, "ranks1")),
)


def written(folder: Path, text: str) -> Path:
    path = folder / "slots.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert read_slots(written(tmp_path, slots_text([SLOT])), PROGRAM) == (SLOT,)


def test_slots_take_the_place_of_their_call_where_they_are_asked_for() -> None:
    with_slot = opened(PROGRAM, [SLOT], {"q", "other"})
    assert with_slot.calls == (*PROGRAM.calls[:AT], *SLOT.calls, *PROGRAM.calls[AT + 1 :])
    assert with_slot.inputs[: len(PROGRAM.inputs)] == PROGRAM.inputs
    assert [edge.tensor for edge in with_slot.inputs[len(PROGRAM.inputs) :]] == ["down", "scale", "up"]
    assert opened(PROGRAM, [SLOT], {"other"}) == PROGRAM


def test_ranks_alone_become_numbers() -> None:
    shape: dict[str, Option] = {"m": "rows0", "n": "ranks3", "upsample_to": ("height0", "width0"), "dtype": "int8"}
    assert with_rank(shape, RANKS[1]) == {**shape, "n": 3 * RANKS[1]}


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ([replace(SLOT, at=99)], "one for a call that there is not"),
        ([replace(SLOT, inverse="nothing")], "names 'nothing', which is no weight of that layer's inputs"),
        ([replace(SLOT, inverse=OWN.inputs["weight"].name)], "which is no weight of that layer's inputs"),
        ([replace(SLOT, at=-1)], "one for a call that there is not"),
        ([SLOT, SLOT], "two slots for a call"),
        ([replace(SLOT, calls=SLOT.calls[:2])], "which nothing before it makes"),
        ([replace(SLOT, up=replace(SLOT.up, shape=(64, "ranks0")))], "a length 'ranks0'"),
        ([replace(SLOT, up=replace(SLOT.up, name="down"))], "which is there already"),
    ],
)
def test_slots_that_no_build_has_written(slots: list[Slot], words: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=words):
        read_slots(written(tmp_path, slots_text(slots)), PROGRAM)


def test_what_another_release_has_written(tmp_path: Path) -> None:
    strange = replace(SLOT, calls=(replace(SLOT.calls[0], op="linear_w3"), *SLOT.calls[1:]))
    with pytest.raises(IncompatibleError, match="calls 'linear_w3'"):
        read_slots(written(tmp_path, slots_text([strange])), PROGRAM)
    newer = {**json.loads(slots_text([SLOT])), "format": 2}
    with pytest.raises(IncompatibleError, match="has format 2, this release reads 1; install a newer pocketxl"):
        read_slots(written(tmp_path, json.dumps(newer)), PROGRAM)
    with pytest.raises(IntegrityError, match="is not the JSON of slots"):
        read_slots(written(tmp_path, "["), PROGRAM)


def test_a_program_without_the_call(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        read_slots(written(tmp_path, slots_text([SLOT])), Program(inputs=(), outputs=(), calls=()))
