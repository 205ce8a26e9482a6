"""A component in segments on ONNX Runtime: refused where its files disagree, ended in its middle, planned by size."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketxl.engine.bands.read import BANDS_FILE
from pocketxl.engine.ending import Ended, Ending
from pocketxl.engine.errors import IntegrityError, RequestError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.ort import OrtDevice
from pocketxl.engine.runners.ort_bands import BandsRunner
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.cpu.target import CpuTarget

from ...fixtures.banded import encoder_runner
from ...fixtures.networks import vae_pair
from ...fixtures.onnx_run import StateDict


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> BandsRunner:
    torch.manual_seed(6)
    pair, folder = vae_pair(), tmp_path_factory.mktemp("vae")
    spec = pair.architecture.decoder()
    model = export_master("vae_decoder", lambda: VaeDecoder(pair.architecture), spec)
    numbers = Quantization(recipe=RECIPES["fp32"], role=spec.role)
    CpuTarget(band_bytes=0).lower(
        "vae_decoder", spec, model, StateDict(pair.ours.state_dict()), numbers, folder, folder
    )
    files = tuple(entry_of(folder, file.name) for file in sorted(folder.iterdir()))
    entry = ComponentEntry(
        spec=spec,
        runner="ort_bands",
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={}),
    )
    return BandsRunner(folder, "vae_decoder", entry, OrtDevice(threads=1))


@pytest.fixture(scope="module")
def two_lanes(runner: BandsRunner) -> BandsRunner:
    """The same component with two threads, so that two bands are under way at a time."""
    return BandsRunner(runner._folder, "vae_decoder", runner._entry, OrtDevice(threads=2))


def latents(side: int) -> dict[str, np.ndarray]:
    return {"latents": np.ones((1, 4, side, side), np.float32)}


def test_it_says_what_it_takes_without_loading_anything(runner: BandsRunner) -> None:
    found = [runner.footprint(Sizes(rows=1, tokens=77, steps=1, pixels=side**2)) for side in (64, 256, 1024)]
    assert [f.working for f in found] == sorted({f.working for f in found})
    assert {f.pool for f in found} == {"host"}
    assert not runner.loaded


def test_it_is_ended_in_its_middle_and_goes_on(runner: BandsRunner) -> None:
    is_ended_and_goes_on(runner)
    runner.release()
    assert not runner.loaded


def is_ended_and_goes_on(runner: BandsRunner) -> None:
    before = np.asarray(runner(latents(4))["image"])
    token = threading.Event()
    timer = threading.Timer(0.2, token.set)
    timer.start()
    with Ending(token).in_effect(), pytest.raises(Ended):
        runner(latents(160))
    assert np.array_equal(runner(latents(4))["image"], before)


def test_bands_side_by_side_give_the_same_picture(runner: BandsRunner, two_lanes: BandsRunner) -> None:
    given = {"latents": np.random.default_rng(3).standard_normal((2, 4, 96, 40), dtype=np.float32)}
    assert (runner.lanes, runner.threads, two_lanes.lanes, two_lanes.threads) == (1, 1, 2, 1)
    alone, beside = (one(given)["image"] for one in (runner, two_lanes))
    assert np.array_equal(alone, beside), "a session has one thread in both"


def test_bands_side_by_side_are_ended_in_their_middle_and_go_on(two_lanes: BandsRunner) -> None:
    is_ended_and_goes_on(two_lanes)


def test_other_inputs_are_refused_by_name(runner: BandsRunner) -> None:
    with pytest.raises(RequestError, match="latents has shape"):
        runner({"latents": np.ones((1, 3, 4, 4), np.float32)})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BandsRunner:
    torch.manual_seed(6)
    return encoder_runner(vae_pair(), "fp32", tmp_path_factory.mktemp("encoder"))


def picture(side: int) -> dict[str, np.ndarray]:
    return {"image": np.linspace(-1, 1, 3 * side * side, dtype=np.float32).reshape(1, 3, side, side)}


def test_an_encoder_is_ended_in_its_middle_and_goes_on(encoder: BandsRunner) -> None:
    before = encoder(picture(32))
    token = threading.Event()
    timer = threading.Timer(0.2, token.set)
    timer.start()
    with Ending(token).in_effect(), pytest.raises(Ended):
        encoder(picture(1536))
    after = encoder(picture(32))
    assert all(np.array_equal(before[name], after[name]) for name in ("mean", "logvar"))


def test_an_encoder_takes_whole_latents(encoder: BandsRunner) -> None:
    with pytest.raises(RequestError, match="vae_encoder: input image is 36 high and 36 wide; give it multiples of 8"):
        encoder(picture(36))


def test_an_encoder_of_other_outputs_is_refused(encoder: BandsRunner) -> None:
    mean, logvar = encoder.spec.outputs
    wider = replace(logvar, shape=("batch", 5, *logvar.shape[2:]))
    entry = replace(encoder._entry, spec=replace(encoder.spec, outputs=(mean, wider)))
    with pytest.raises(IntegrityError, match="disagree on the edge"):
        BandsRunner(encoder._folder, "vae_encoder", entry, OrtDevice(threads=1)).load()


def test_a_segment_that_was_altered_is_never_opened(runner: BandsRunner) -> None:
    folder = runner._folder
    path = folder / "segment_03.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(IntegrityError, match=r"segment_03\.onnx was altered"):
            BandsRunner(folder, "vae_decoder", runner._entry, OrtDevice(threads=1)).load()
    finally:
        path.write_bytes(content)


def test_segments_of_another_edge_are_refused(runner: BandsRunner, tmp_path: Path) -> None:
    text = (runner._folder / BANDS_FILE).read_text().replace('"latents"', '"noise"')
    (tmp_path / BANDS_FILE).write_text(text)
    entry = replace(runner._entry, files=(entry_of(tmp_path, BANDS_FILE),))
    with pytest.raises(IntegrityError, match="disagree on the edge"):
        BandsRunner(tmp_path, "vae_decoder", entry, OrtDevice(threads=1)).load()
