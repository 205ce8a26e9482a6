"""`program.json`: written and read again, and what is refused."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import IncompatibleError, IntegrityError, PocketXLError
from pocketxl.engine.program.checks import check_files, words_of
from pocketxl.engine.program.program import BinarySpec, Call, Edge, Layout, Operand, Program, ValueSpec, Words
from pocketxl.engine.program.read import from_json, read_program, to_json

from ...fixtures.small_programs import small_program

PROGRAM = replace(
    small_program()[0],
    binaries={"90": {"kernel-0": BinarySpec(offset=0, size=10, entry="kernel", shared=0, threads=128)}},
    portable={"kernel-1": BinarySpec(offset=2, size=8, entry="kernel", shared=0, threads=128)},
    tables="0123",
)
DATA = json.loads(to_json(PROGRAM))


def test_what_is_written_is_read_again() -> None:
    assert from_json(to_json(PROGRAM)) == PROGRAM


OPTIONS = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
)


@given(st.dictionaries(st.text(max_size=5), OPTIONS, max_size=4))
def test_every_option_of_a_call_comes_back_as_it_was(shape: dict[str, Any]) -> None:
    call = Call(op="attention", layer="a", shape=shape, inputs={}, outputs={"out": "y"})
    read = from_json(to_json(Program(inputs=(), outputs=(), calls=(call,)))).calls[0].shape
    assert read == shape
    assert {name: type(option) for name, option in read.items()} == {n: type(option) for n, option in shape.items()}


def change(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(data: dict[str, Any]) -> None:
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return apply


WRONG = [
    (change("format", to=2), IncompatibleError, "has format 2.*newer pocketxl"),
    (change("format", to="1"), IncompatibleError, "has format '1'.*build the engine again"),
    (change("format", to=True), IncompatibleError, "has format True"),
    (change("calls", 0, "op", to="os.system"), IncompatibleError, "calls 'os.system', this release has"),
    (change("more", to=1), IntegrityError, "unknown keys"),
    (change("calls", 1, "shape", "c", to={}), IntegrityError, "must be"),
    (change("calls", 1, "shape", "c", to=["height0", 1]), IntegrityError, "must be"),
    (change("calls", 0, "inputs", "x", "name", to="none"), IntegrityError, "'none', which nothing before it makes"),
    (change("calls", 0, "inputs", "x", "name", to="h.1"), IntegrityError, "which nothing before it makes"),
    (change("calls", 0, "inputs", "x", "offset", to=-1), IntegrityError, "from -1 on"),
    (change("calls", 2, "outputs", "out", to="q.0"), IntegrityError, "makes 'q.0', which is there already"),
    (change("calls", 2, "outputs", "out", to="norm.0.bias"), IntegrityError, "which is there already"),
    (change("calls", 2, "outputs", "out", to="latents"), IntegrityError, "which is there already"),
    (change("outputs", 0, "values", 0, "name", to="latents"), IntegrityError, "which no call makes"),
    (change("outputs", 0, "values", to=[]), IntegrityError, "has 0 values"),
    (change("inputs", 0, "values", 0, "dtype", to="float64"), IntegrityError, "'float64'"),
    (change("inputs", 0, "values", 0, "shape", 1, to="heights"), IntegrityError, "a length 'heights'"),
    (change("inputs", 0, "values", 0, "shape", 3, to=0), IntegrityError, "a length 0"),
    (change("outputs", 0, "values", 0, "shape", to=["batch", "rows0"]), IntegrityError, "in the layout pixels"),
    (change("inputs", 0, "layout", to="pixels"), IntegrityError, "pixels, which is for outputs"),
    (change("inputs", 1, "tensor", to="latents"), IntegrityError, "is there twice"),
    (change("weights", "norm.0.bias", "offset", to=128), IntegrityError, "a multiple of 256"),
    (change("weights", "norm.0.bias", "offset", to=-256), IntegrityError, "a multiple of 256"),
    (change("weights", "norm.0.bias", "dtype", to="object"), IntegrityError, "'object'"),
    (change("weights", "norm.0.bias", "shape", to=[0]), IntegrityError, "has shape"),
    (change("binaries", "ninety", to={}), IntegrityError, "'ninety'"),
    (change("binaries", "90", "kernel-0", "threads", to=2048), IntegrityError, "threads=2048"),
    (change("binaries", "90", "kernel-0", "hidden", to=-1), IntegrityError, "hidden=-1"),
    (change("binaries", "90", "kernel-0", "shared", to=1 << 30), IntegrityError, "shared="),
    (change("binaries", "90", "kernel-0", "entry", to=""), IntegrityError, "entry=''"),
    (change("binaries", "90", "kernel-0", "size", to=0), IntegrityError, "has 0 bytes"),
    (change("portable", "kernel-1", "offset", to=-1), IntegrityError, "portable.'kernel-1' has 8 bytes from -1 on"),
]


def texts(**changes: Any) -> Program:
    """A program whose key is looked up, and whose prediction is the row where a text ends."""
    width = 64
    words = Words(**{"words": 9, "tokens": 77, "width": width, **changes.pop("words", {})})
    value = ValueSpec(**{"name": "key", "shape": ("batch", "tokens", width), **changes.pop("value", {})})
    looked = Edge(**{"tensor": "ids", "layout": Layout.WORDS, "values": (value,), "words": words, **changes})
    others = tuple(edge for edge in PROGRAM.inputs if edge.values[0].name != "key")
    (last,) = PROGRAM.outputs[0].values
    end = Edge(
        tensor="pooled",
        layout=Layout.END_OF_TEXT,
        values=(replace(last, shape=("batch", "tokens", width), dtype="float16"),),
    )
    return replace(PROGRAM, inputs=(*others, looked), outputs=(end,))


def test_texts_come_back() -> None:
    program = texts(words={"end": 3})
    assert from_json(to_json(program)) == program
    assert words_of(program) == Words(words=9, tokens=77, width=64, end=3)
    assert words_of(PROGRAM) is None
    end = max(spec.offset for spec in PROGRAM.weights.values()) + 32
    check_files(program, "p", weights=end, kernels=10, words=2 * 86 * 64)
    with pytest.raises(IntegrityError, match="its words are 11008 bytes, the file has 11007"):
        check_files(program, "p", weights=end, kernels=10, words=11007)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (texts(words={"words": 0}), r"a table of \(0, 77, 64\)"),
        (texts(words={"width": 32}), "its table has float16 rows of 32"),
        (texts(value={"dtype": "float32"}), "is float32 .*its table has float16 rows"),
        (texts(value={"shape": ("batch", 77, 64)}), r"\('batch', 77, 64\), its table"),
        (texts(layout=Layout.ROWS), "the layout rows and a table of words"),
        (replace(PROGRAM, inputs=(replace(PROGRAM.inputs[0], layout=Layout.WORDS),)), "words and no table"),
        (replace(texts(), inputs=PROGRAM.inputs), "the end of a text, and there is no text"),
        (
            replace(texts(), inputs=(*texts().inputs, replace(texts().inputs[-1], tensor="more", values=()))),
            "two inputs look their words up",
        ),
        (
            replace(texts(), inputs=(replace(PROGRAM.inputs[0], layout=Layout.END_OF_TEXT), *texts().inputs[1:])),
            "end_of_text, which is for outputs",
        ),
        (replace(texts(), outputs=(replace(texts().outputs[0], layout=Layout.WORDS),)), "words, which is for inputs"),
    ],
)
def test_texts_that_no_build_writes_are_named(program: Program, says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        from_json(to_json(program))


@pytest.mark.parametrize(("apply", "error", "says"), WRONG)
def test_what_no_build_writes_is_named(
    apply: Callable[[dict[str, Any]], None], error: type[PocketXLError], says: str
) -> None:
    data = json.loads(json.dumps(DATA))
    apply(data)
    with pytest.raises(error, match=says) as raised:
        from_json(json.dumps(data), "base/unet/program.json")
    assert "base/unet/program.json" in str(raised.value)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in some JSON."""
    if path:
        yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


JSON = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.text(max_size=3), st.none(), st.booleans(), st.just([]), st.just({})
)


@given(st.sampled_from(list(places(DATA))), JSON)
def test_any_other_value_anywhere_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    data = json.loads(json.dumps(DATA))
    change(*path, to=value)(data)
    try:
        program = from_json(json.dumps(data))
    except PocketXLError:
        return
    assert from_json(to_json(program)) == program


@given(st.binary(max_size=30).map(lambda b: b.decode("latin1")) | st.integers(1, len(to_json(PROGRAM)) - 2))
def test_other_text_and_a_part_of_it_are_refused(text: str | int) -> None:
    with pytest.raises((IntegrityError, IncompatibleError)):
        from_json(to_json(PROGRAM)[:text] if isinstance(text, int) else text)


def test_a_file_is_text_of_bounded_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "program.json"
    path.write_text(to_json(PROGRAM), encoding="utf-8")
    assert read_program(path) == PROGRAM
    path.write_bytes(b"\xff")
    with pytest.raises(IntegrityError, match="not UTF-8"):
        read_program(path)
    monkeypatch.setattr("pocketxl.engine.program.read.MOST_BYTES", 0)
    with pytest.raises(IntegrityError, match="at most 0"):
        read_program(path)


def test_weights_and_kernels_lie_inside_of_their_files() -> None:
    end = max(spec.offset for spec in PROGRAM.weights.values()) + 32  # the last are 16 of 2 bytes
    check_files(PROGRAM, "p", weights=end, kernels=10)
    with pytest.raises(IntegrityError, match=r"'last\.bias' ends behind"):
        check_files(PROGRAM, "p", weights=end - 1, kernels=10)
    with pytest.raises(IntegrityError, match="kernel-0' ends behind"):
        check_files(PROGRAM, "p", weights=end, kernels=9)
    only = replace(PROGRAM, binaries={})
    with pytest.raises(IntegrityError, match=r"portable\.'kernel-1' ends behind"):
        check_files(only, "p", weights=end, kernels=9)


def test_an_operand_is_read_by_its_name() -> None:
    assert PROGRAM.calls[7].inputs["k"] == Operand(name="qkv", offset=64)
