"""A VAE's encoder in segments is the encoder: against diffusers and its own uncut graph, at sizes with odd halves."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.bands.sizes import working_bytes
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.models.vae_encoder import VaeEncoder
from pocketxl.engine.runners.base import call
from pocketxl.engine.runners.ort import OrtDevice
from pocketxl.engine.runners.ort_bands import BandsRunner
from pocketxl.export.bands.write import cut_graph
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.targets.cpu.target import CpuTarget, rewrite

from ...fixtures.banded import encoder_quantization, encoder_runner, encoder_weights
from ...fixtures.networks import VaePair, vae_pair
from ...tolerances import BANDS_RELATIVE, MODEL_RELATIVE

BAND_NUMBERS = (1, 1 << 9, 1 << 19)
"""A row at a time, some rows, all of them."""


@pytest.fixture(scope="module")
def pair() -> VaePair:
    torch.manual_seed(5)
    return vae_pair()


@pytest.fixture(scope="module")
def build(pair: VaePair, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BandsRunner]:
    made: dict[str, BandsRunner] = {}
    return lambda recipe: (
        made.get(recipe) or made.setdefault(recipe, encoder_runner(pair, recipe, tmp_path_factory.mktemp(recipe)))
    )


def pictures(height: int, width: int, rows: int = 1) -> np.ndarray:
    numbers = np.random.default_rng(height * width).uniform(-1, 1, (rows, 3, 8 * height, 8 * width))
    return numbers.astype(np.float32)


def in_bands(runner: BandsRunner, numbers: int) -> BandsRunner:
    runner._program = replace(runner.program, band_numbers=numbers)
    return runner


def apart(found: Any, wanted: Any) -> float:
    return float(np.linalg.norm(np.asarray(found) - wanted) / np.linalg.norm(wanted))


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), numbers=st.sampled_from(BAND_NUMBERS))
def test_floats_are_diffusers_own_distribution(
    pair: VaePair, build: Callable[[str], BandsRunner], height: int, width: int, numbers: int
) -> None:
    image = pictures(height, width)
    found = call(in_bands(build("fp32"), numbers), {"image": image})
    theirs = pair.theirs.encode(torch.from_numpy(image)).latent_dist
    for name, wanted in (("mean", theirs.mean), ("logvar", theirs.logvar)):
        assert found[name].shape == (1, 4, height, width)
        assert apart(found[name], wanted.numpy()) < MODEL_RELATIVE


def test_most_of_it_may_go_through_the_file(
    pair: VaePair, build: Callable[[str], BandsRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pictures(5, 7)
    expected = call(in_bands(build("fp32"), 1 << 9), {"image": image})
    monkeypatch.setattr("pocketxl.engine.runners.ort_bands.STORE_BYTES", 5000)
    found = call(build("fp32"), {"image": image})
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_with_weights_in_8_bits_it_is_what_the_uncut_graph_gives(
    pair: VaePair, build: Callable[[str], BandsRunner], tmp_path: Path
) -> None:
    import onnx_ir as ir
    import onnxruntime

    model = export_master("vae_encoder", lambda: VaeEncoder(pair.architecture), pair.architecture.encoder())
    attach(model, encoder_weights(pair))
    rewrite(model, encoder_quantization(pair, "int8"))
    ir.save(model, tmp_path / "model.onnx", external_data="model.onnx.data")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    image = pictures(7, 5)
    expected = dict(zip(("mean", "logvar"), session.run(["mean", "logvar"], {"image": image}), strict=True))
    found = call(in_bands(build("int8"), 1 << 9), {"image": image})
    assert all(apart(found[name], expected[name]) < BANDS_RELATIVE for name in expected)


def test_latents_do_not_depend_on_threads_or_neighbours(build: Callable[[str], BandsRunner]) -> None:
    runner, image = in_bands(build("fp32"), 1 << 9), pictures(6, 5, rows=2)
    both = call(runner, {"image": image})
    other = BandsRunner(runner._folder, "vae_encoder", runner._entry, OrtDevice(threads=3))
    alone = call(in_bands(other, 1 << 9), {"image": image[1:]})
    assert all(np.array_equal(both[name][1:], alone[name]) for name in both)


def test_a_segment_has_one_convolution_of_pixels_and_zeros_are_its_padding(
    build: Callable[[str], BandsRunner],
) -> None:
    runner, halving = build("fp32"), 0
    for segment in runner.program.segments:
        nodes = onnx.load(runner._folder / segment.file, load_external_data=False).graph.node
        assert not {"Pad", "Split", "InstanceNormalization"} & {node.op_type for node in nodes}
        found = {a.name: list(a.ints) for node in nodes if node.op_type == "Conv" for a in node.attribute if a.ints}
        assert sum(a.ints == [3, 3] for n in nodes for a in n.attribute if a.name == "kernel_shape") <= 1
        if found.get("strides") == [2, 2]:
            halving += 1
            assert found["pads"] == [0, 0, 0, 1]
            assert [(read.above, read.halo) for read in segment.reads] == [(0, 1)]
    assert halving == 3


def test_sdxl_s_encoder_takes_what_its_decoder_takes() -> None:
    architecture = VaeArchitecture()
    halves = (("vae_encoder", VaeEncoder, architecture.encoder()), ("vae_decoder", VaeDecoder, architecture.decoder()))
    encoder, decoder = (
        cut_graph(export_master(name, partial(module, architecture), spec).graph)[0] for name, module, spec in halves
    )
    for side, most in ((512, 500 << 20), (1024, 700 << 20), (2048, 1000 << 20)):
        takes = [working_bytes(program, side * side) for program in (encoder, decoder)]
        assert takes[0] < 1.05 * takes[1]
        assert max(takes) < most


def test_only_wide_encoders_are_cut(pair: VaePair, tmp_path: Path) -> None:
    spec = pair.architecture.encoder()
    model = export_master("vae_encoder", lambda: VaeEncoder(pair.architecture), spec)
    numbers = encoder_quantization(pair, "fp32")
    made = CpuTarget().lower("vae_encoder", spec, model, encoder_weights(pair), numbers, tmp_path, tmp_path)
    assert made.runner == "ort"
    assert (tmp_path / "model.onnx").is_file()
