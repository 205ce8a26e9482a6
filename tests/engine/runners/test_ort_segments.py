"""A component that runs in segments: equal to the bit, one or two sessions at a time, ended, damaged, and wrong."""

import gc
import shutil
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.ending import Ended, Ending
from pocketxl.engine.errors import IntegrityError, RequestError
from pocketxl.engine.folder.manifest import ComponentEntry, read_manifest
from pocketxl.engine.runners import ort, ort_memory, ort_segments, ort_session
from pocketxl.engine.runners.base import Sizes, Streams, call
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner
from pocketxl.engine.runners.ort_memory import UNSIGNED_COPIES, packs
from pocketxl.engine.runners.ort_providers import PROVIDERS
from pocketxl.engine.specs import Role

from ...fixtures.segmented import segmented

CUT = ("base/unet", "refiner/unet", "base/conditioner", "text_encoder_2")
SIZES = Sizes(rows=1, tokens=77, steps=2, pixels=64 * 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segmented(tmp_path_factory.mktemp("segmented") / "engine")


def entry_of(folder: Path, name: str) -> ComponentEntry:
    return read_manifest(folder).components[name]


def runner_of(folder: Path, name: str, entry: ComponentEntry | None = None, threads: int = 1) -> OrtRunner:
    return OrtRunner(folder, name, entry or entry_of(folder, name), OrtDevice(threads=threads))


def inputs(runner: OrtRunner, side: int = 8, batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"batch": batch, "tokens": 77, "steps": 3, "height": side, "width": side + 2}
    shapes = {t: [sizes[d] if isinstance(d, str) else d for d in t.shape] for t in runner.spec.inputs}
    return {
        t.name: rng.integers(0, 40, shape) if t.dtype == "int64" else rng.standard_normal(shape).astype(np.float32)
        for t, shape in shapes.items()
    }


def compared(folder: Path, name: str, entry: ComponentEntry | None = None, **sizes: int) -> None:
    """One call as a whole, two in segments."""
    whole, pieces = runner_of(folder, name, entry), runner_of(folder, name, entry)
    given = inputs(whole, **sizes)
    expected = call(whole, given)
    pieces.load_streamed()
    for _ in range(2):
        found = call(pieces, given)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
    whole.release()
    pieces.release()


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("sizes", [{}, {"side": 13, "batch": 2}], ids=["one row", "two rows, odd"])
def test_it_gives_the_same_to_the_bit(folder: Path, name: str, sizes: dict[str, Any]) -> None:
    streaming = entry_of(folder, name).streaming
    assert streaming is not None
    assert len(streaming.segments) > 1
    compared(folder, name, **sizes)


def test_it_does_with_weights_laid_out_for_kernels_too(folder: Path) -> None:
    entry = replace(entry_of(folder, "base/unet"), int8_bytes=0)
    assert packs(entry)
    assert not packs(entry_of(folder, "base/unet"))
    compared(folder, "base/unet", entry)


def test_two_sessions_are_alive_at_most(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0
    real = ort_session.open_session

    def watched(*args: Any, **settings: Any) -> Any:
        nonlocal most
        session = real(*args, **settings)
        alive.append(weakref.ref(session))
        most = max(most, sum(ref() is not None for ref in alive))
        return session

    monkeypatch.setattr(ort, "open_session", watched)
    unet = runner_of(folder, "base/unet")
    unet.load_streamed()
    call(unet, inputs(unet))
    streaming = entry_of(folder, "base/unet").streaming
    assert streaming is not None
    assert len(alive) == 2 * len(streaming.segments) > 8, "once to look at it, once to run"
    assert most <= 3, "one that runs, the next, and the one that is just going"
    gc.collect()
    assert not any(ref() is not None for ref in alive), "nothing stays between calls"


def test_it_is_loaded_and_released_like_any_other(folder: Path) -> None:
    unet = runner_of(folder, "base/unet")
    assert isinstance(unet, Streams)
    for _ in range(2):
        unet.load_streamed()
        unet.load()  # what is loaded stays as it is
        assert isinstance(unet._session, ort_segments.Segments)
        unet.release()
        assert not unet.loaded


def test_inputs_are_checked_all_the_same(folder: Path) -> None:
    unet = runner_of(folder, "base/unet")
    unet.load_streamed()
    wrong = inputs(unet)
    del wrong["latents"]
    with pytest.raises(RequestError, match="missing inputs"):
        unet(wrong)


def test_a_run_is_ended_in_its_middle(folder: Path) -> None:
    unet = runner_of(folder, "base/unet")
    unet.load_streamed()
    before = call(unet, inputs(unet))["prediction"]
    token = threading.Event()
    timer = threading.Timer(0.3, token.set)  # such a run takes seconds
    timer.start()
    with Ending(token).in_effect(), pytest.raises(Ended):
        unet(inputs(unet, side=192))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pocketxl-next")]
    assert np.array_equal(call(unet, inputs(unet))["prediction"], before), "and it goes on"


@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_a_segment_that_is_not_as_it_was(folder: Path, fault: str, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "engine")
    file = copy / "base/unet/segment-03.onnx"
    if fault == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    unet = runner_of(copy, "base/unet")
    with pytest.raises(IntegrityError, match=r"segment-03.onnx (is missing|was altered)"):
        unet.load_streamed()
    assert not unet.loaded


@pytest.mark.parametrize("fault", ["order", "first missing", "last missing"])
def test_segments_that_are_not_the_component(folder: Path, fault: str) -> None:
    entry = entry_of(folder, "base/unet")
    assert entry.streaming is not None
    first, second, *others = entry.streaming.segments
    wrong = {"order": (second, first, *others), "first missing": (second, *others),
             "last missing": (first, second, *others[:-1])}[fault]  # fmt: skip
    unet = runner_of(folder, "base/unet", replace(entry, streaming=replace(entry.streaming, segments=wrong)))
    with pytest.raises(IntegrityError, match=r"base/unet: engine.json and .* disagree on"):
        unet.load_streamed()
    assert not unet.loaded


def test_what_was_not_cut_and_what_no_processor_runs_cannot_be_streamed(folder: Path) -> None:
    assert entry_of(folder, "vae_decoder").spec.role is Role.VAE_DECODER
    assert runner_of(folder, "vae_decoder").streamed(SIZES) is None
    entry = entry_of(folder, "base/unet")
    on_a_card = OrtRunner(folder, "base/unet", entry, OrtDevice(threads=1, provider=PROVIDERS["cuda"]))
    assert on_a_card.streamed(SIZES) is None


def test_a_processor_without_vnni_copies_what_it_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streaming = entry_of(folder, "base/unet").streaming
    assert streaming is not None
    largest = max(segment.size for segment in streaming.segments)
    taken = []
    for needed in (False, True):
        monkeypatch.setattr(ort_memory, "adds_in_16_bits", lambda needed=needed: needed)
        footprint = runner_of(folder, "base/unet").streamed(SIZES)
        assert footprint is not None
        assert footprint.weights == footprint.retained == 0
        taken.append(footprint.working)
    assert taken[0] < taken[1] < taken[0] + 2 * largest * UNSIGNED_COPIES
