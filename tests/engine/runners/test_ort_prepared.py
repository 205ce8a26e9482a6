"""A component as ONNX Runtime runs it, kept: it is opened in place of the original, and is to the bit what that is."""

import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, IntegrityError, StorageError
from pocketxl.engine.folder import files
from pocketxl.engine.folder.manifest import checked_file, read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners import open_runners, ort, ort_prepared, ort_session, processor
from pocketxl.engine.runners.base import Runner
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner
from pocketxl.engine.runners.prepared_files import GRAPH, WEIGHTS, PreparedFiles
from pocketxl.engine.runners.processor import processor_facts
from pocketxl.engine.specs import Arrays

UNET = "base/unet"
SIZES = {"tokens": 77, "height": 24, "width": 16, "steps": 3}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not processor_facts():
        pytest.skip("nothing is prepared where the system does not tell its processor")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(FOLDER, tmp_path / "engine", ignore=shutil.ignore_patterns("*.prepared")))


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each session that is made to run: whether it is of what was kept."""
    made: list[bool] = []
    make = ort_session.open_session

    def counted(*args: Any, prepared: bool = False, keep_as: Any = None, **settings: Any) -> Any:
        if keep_as is None:
            made.append(prepared)
        return make(*args, prepared=prepared, keep_as=keep_as, **settings)

    monkeypatch.setattr(ort, "open_session", counted)
    return made


def runner_of(folder: Path, name: str = UNET, threads: int = 1) -> OrtRunner:
    return OrtRunner(folder, name, read_manifest(folder).components[name], OrtDevice(threads=threads))


def answers(runner: Runner) -> Arrays:
    random = np.random.default_rng(1)
    inputs: dict[str, np.ndarray] = {}
    for tensor in runner.spec.inputs:
        shape = [SIZES.get(d, 1) if isinstance(d, str) else d for d in tensor.shape]
        floats = random.standard_normal(shape)
        inputs[tensor.name] = (floats if tensor.dtype.startswith("float") else 9 * abs(floats)).astype(tensor.dtype)
    try:
        return {name: np.asarray(value) for name, value in runner(inputs).items()}
    finally:
        runner.release()


def same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


def prepared_folder(folder: Path, name: str = UNET) -> Path:
    (found,) = (folder / name).glob("*.prepared")
    return found


def prepared_in(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.prepared*")


def test_every_component_gives_the_same_to_the_bit(folder: Path, opened: list[bool]) -> None:
    check_all(folder, opened)


def test_floats_give_the_same_to_the_bit(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[bool]
) -> None:
    if not processor_facts():
        pytest.skip("nothing is prepared where the system does not tell its processor")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    check_all(Path(shutil.copytree(tiny_engine, tmp_path / "engine")), opened)


def check_all(folder: Path, opened: list[bool]) -> None:
    count = 0
    for name, runner in open_runners(folder, read_manifest(folder), threads=1).items():
        assert isinstance(runner, OrtRunner)
        if not runner.prepares():
            continue
        count += 1
        before = answers(runner)
        runner.prepare()
        opened.clear()
        for threads in (1, 2):
            assert same(answers(runner_of(folder, name, threads)), before), name
        assert opened == [True, True], name
    assert count == 4


def test_what_is_there_is_not_written_again(folder: Path) -> None:
    first = runner_of(folder).prepare()
    times = {path: path.stat().st_mtime_ns for path in prepared_folder(folder).iterdir()}
    second = runner_of(folder).prepare()
    assert first.bytes == sum(path.stat().st_size for path in times)
    assert first.load_seconds_before is not None
    assert (second.bytes, second.load_seconds_before) == (0, None)
    assert {path: path.stat().st_mtime_ns for path in prepared_folder(folder).iterdir()} == times


@pytest.mark.parametrize("change", ["onnxruntime", "processor", "files", "tiles", "16 bits"])
def test_for_anything_else_the_original_is_opened(
    change: str, folder: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner_of(folder).prepare()
    opened.clear()
    runner = runner_of(folder)
    if change == "onnxruntime":
        monkeypatch.setattr(ort_session.import_onnxruntime(), "__version__", "1.99")
    elif change == "processor":
        monkeypatch.setattr(ort_prepared, "processor_facts", lambda: "another")
    elif change == "files":
        path = folder / UNET / "openings.npz"
        path.write_bytes(path.read_bytes() + b"\0")
        entry = runner._entry
        changed = tuple(files.entry_of(folder, f.path) if f.name == path.name else f for f in entry.files)
        runner = OrtRunner(folder, UNET, replace(entry, files=changed), OrtDevice(threads=1))
    elif change == "tiles":
        old = processor.multiplies_in_tiles()
        monkeypatch.setattr(ort_prepared, "multiplies_in_tiles", lambda: not old)
    else:
        adds = processor.adds_in_16_bits()
        monkeypatch.setattr(ort_prepared, "adds_in_16_bits", lambda: not adds)
    runner.load()
    assert opened == [False]


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
def test_a_damaged_one_is_passed_over(
    name: str, folder: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(runner_of(folder))
    runner_of(folder).prepare()
    file = prepared_folder(folder) / name
    content = file.read_bytes()
    file.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    monkeypatch.setattr(files, "_hashed", {})  # the next process
    opened.clear()
    assert same(answers(runner_of(folder)), before)
    assert opened == [False]


def test_one_that_onnx_runtime_cannot_open_is_passed_over(
    folder: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(runner_of(folder))
    runner_of(folder).prepare()
    (folder / UNET / "strange").write_bytes(b"strange")
    monkeypatch.setattr(PreparedFiles, "find", lambda self: folder / UNET / "strange")
    opened.clear()
    assert same(answers(runner_of(folder)), before)
    assert opened == [True, False]


def test_a_damaged_original_is_not_prepared(folder: Path) -> None:
    path = folder / UNET / "model.onnx.data"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError):
        runner_of(folder).prepare()
    assert list(prepared_in(folder)) == []


def test_an_onnx_runtime_that_keeps_no_weights_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_prepared, "_MARK", b"what an older one does not write")
    with pytest.raises(IncompatibleError, match="install a newer one"):
        runner_of(folder).prepare()
    assert list(prepared_in(folder)) == []


def test_an_onnx_runtime_that_cannot_keep_a_graph_is_not_told_as_a_full_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = ort_session.open_session

    def refusing(*args: Any, keep_as: Any = None, **settings: Any) -> Any:
        if keep_as is not None:
            raise RuntimeError("this node cannot be saved")
        return make(*args, **settings)

    monkeypatch.setattr(ort, "open_session", refusing)
    with pytest.raises(IncompatibleError, match=r"cannot keep this graph.*It says: this node cannot be saved"):
        runner_of(folder).prepare()
    assert list(prepared_in(folder)) == []


def test_what_was_removed_as_it_was_to_be_opened_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner_of(folder).prepare()
    find = PreparedFiles.find

    def late(self: PreparedFiles, *, anew: bool = False) -> Path | None:
        found = find(self, anew=anew)
        if found is not None:
            monkeypatch.setattr(PreparedFiles, "find", find)
            shutil.rmtree(found.parent)
        return found

    monkeypatch.setattr(PreparedFiles, "find", late)
    assert runner_of(folder).prepare().bytes > 0
    assert prepared_folder(folder).is_dir()


def test_what_the_disk_changed_by_itself_is_made_anew(
    folder: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(runner_of(folder))
    runner_of(folder).prepare()
    file = prepared_folder(folder) / WEIGHTS
    content = file.read_bytes()
    file.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    monkeypatch.setattr(files, "_hashed", {})
    monkeypatch.setattr(files, "noted", lambda *_: True)  # no time of the file's tells
    assert runner_of(folder).prepare().bytes > 0
    assert file.read_bytes() == content
    opened.clear()
    assert same(answers(runner_of(folder)), before)
    assert opened == [True]


def test_a_load_is_timed_without_hashing_the_original(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    timed = ort_prepared._timed

    def hashing(*args: Any) -> Path:
        order.append("hashed")
        return checked_file(*args)

    def timing(make: Any) -> tuple[Any, float]:
        order.append("timed")
        return timed(make)

    monkeypatch.setattr(ort, "checked_file", hashing)
    monkeypatch.setattr(ort_prepared, "_timed", timing)
    runner_of(folder).prepare()
    assert order[:2] == ["hashed", "timed"]


def test_on_a_processor_that_is_not_told_nothing_is_prepared(
    folder: Path, opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner_of(folder).prepare()
    opened.clear()
    monkeypatch.setattr(processor, "_flags", frozenset)
    assert processor_facts() == ""
    assert not runner_of(folder).prepares()
    runner_of(folder).load()
    assert opened == [False]
    assert runner_of(folder).forget_prepared() > 0


def test_one_that_gives_other_numbers_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "array_equal", lambda *_, **__: False)
    with pytest.raises(IncompatibleError, match="other numbers"):
        runner_of(folder).prepare()
    assert list(prepared_in(folder)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="it limits no process's files")
def test_a_disk_that_fills_up_is_told_and_nothing_is_left(folder: Path) -> None:
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, old[1]))
    try:
        with pytest.raises(StorageError, match=r"needed, .* are free; free some space"):
            runner_of(folder).prepare()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(prepared_in(folder)) == []


def test_open_graphs_and_segments_stay_as_they_are(folder: Path, opened: list[bool]) -> None:
    runner_of(folder).prepare()
    opened.clear()
    runner = runner_of(folder)
    openings = runner.openings
    assert openings is not None
    runner.opened(openings.graphs[0]).load()
    assert opened == [False]
