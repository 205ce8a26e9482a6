"""A wide VAE's decoder on OpenVINO: at once, and over bands, however high, however many side by side, however kept."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pocketxl.engine.bands.read import BANDS_FILE, read_bands
from pocketxl.engine.ending import Ended, Ending
from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ComponentEntry
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.runners import openvino_bands
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.openvino_bands import OpenVinoBandsRunner, OpenVinoDevice
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.formats import Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.signed_ranges import fit_signed
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cpu import conv_patches
from pocketxl.export.targets.openvino import bands
from pocketxl.export.targets.openvino.target import OpenVinoTarget

from ....fixtures.calibration import observe
from ....fixtures.networks import VaePair, vae_pair
from ....fixtures.onnx_run import StateDict
from ....tolerances import OPENVINO_BANDS_RELATIVE, OPENVINO_BANDS_ROUNDED, OPENVINO_DECODER_RELATIVE

Core = pytest.importorskip("openvino").Core
KEPT = "int8 with floats behind doublings"
SMALL = 1 << 11
"""Bytes of a band: a row or two at a time, of 7 rows of latents, so that the last one is lower."""
SIZES = Sizes(rows=1, tokens=77, steps=1, pixels=2048**2)
Quantize = Callable[[str], Quantization]


@pytest.fixture(scope="module")
def pair() -> VaePair:
    torch.manual_seed(5)
    return vae_pair()


@pytest.fixture(scope="module")
def latents() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 4, 7, 6), dtype=np.float32)


@pytest.fixture(scope="module")
def expected(pair: VaePair, latents: np.ndarray) -> np.ndarray:
    found: np.ndarray = pair.theirs.decode(torch.from_numpy(latents)).sample.numpy()
    return found


@pytest.fixture
def quantize(pair: VaePair, latents: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    """Recipe → what its layers become, with all convolutions but the first and the last in 8 bits for int8."""
    monkeypatch.setattr(conv_patches, "LEAST", 1)
    spec, target = pair.architecture.decoder(), OpenVinoTarget()
    module = StreamedModule(lambda: VaeDecoder(pair.architecture), spec, StateDict(pair.ours.state_dict()))
    seen = observe(module, [{"latents": latents}]).layers
    convolutions = {n: m.weight.flatten(1).numpy() for n, m in pair.ours.named_modules() if isinstance(m, nn.Conv2d)}

    def quantization(recipe: str) -> Quantization:
        chosen = target.suited(fitted(RECIPES[recipe.split()[0]], target), pair.architecture)
        if recipe == KEPT:
            chosen = chosen.keeping(spec.role, [(Kind.CONV, name) for name in convolutions if "upsamplers" in name])
        formats = {name: chosen.format(spec.role, Kind.CONV, name) for name in convolutions}
        scales = {n: fit_signed(n, convolutions[n], seen[n], f) for n, f in formats.items() if f.signed}
        assert (len(scales) > 10) is (recipe != "fp32")
        return Quantization(recipe=chosen, role=spec.role, input_scales=scales)

    return quantization


def lowered(
    pair: VaePair, quantization: Quantization, out: Path, threads: int = 1, *, over_bands: bool = True
) -> OpenVinoBandsRunner:
    spec = pair.architecture.decoder()
    model = export_master("vae_decoder", lambda: VaeDecoder(pair.architecture), spec)
    weights = StateDict(pair.ours.state_dict())
    made = OpenVinoTarget(band_bytes=0).lower("vae_decoder", spec, model, weights, quantization, out, out)
    assert made.runner == "openvino_bands"
    files = tuple(entry_of(out, file.name) for file in sorted(out.iterdir()))
    entry = ComponentEntry(
        spec=spec, runner=made.runner, files=files, weight_bytes=sum(f.size for f in files), activation=made.activation
    )
    runner = OpenVinoBandsRunner(out, "vae_decoder", entry, OpenVinoDevice(threads=threads))
    if over_bands:
        runner.load_streamed()
    return runner


def apart(actual: Any, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("numbers", [bands.BAND_BYTES, SMALL])
def test_floats_are_diffusers_own_picture(
    numbers: int, pair: VaePair, latents: np.ndarray, expected: np.ndarray, quantize: Quantize, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(bands, "BAND_BYTES", numbers)
    monkeypatch.setattr(openvino_bands, "STORE_BYTES", 5000)  # most of it goes through the file
    runner = lowered(pair, quantize("fp32"), tmp_path)
    assert apart(runner({"latents": latents})["image"], expected) < OPENVINO_BANDS_RELATIVE


@pytest.mark.parametrize("recipe", ["fp32", "int8", KEPT])
def test_at_once_it_is_the_same_picture(
    recipe: str, pair: VaePair, latents: np.ndarray, expected: np.ndarray, quantize: Quantize, tmp_path: Path
) -> None:
    runner = lowered(pair, quantize(recipe), tmp_path, over_bands=False)
    found = np.asarray(runner({"latents": latents})["image"])
    assert apart(found, expected) < (OPENVINO_BANDS_RELATIVE if recipe == "fp32" else OPENVINO_DECODER_RELATIVE)
    assert runner._segments is None
    runner.release()
    assert not runner.loaded


def test_a_large_picture_is_made_over_bands_and_others_where_memory_is_short(
    pair: VaePair, latents: np.ndarray, quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = lowered(pair, quantize("fp32"), tmp_path, over_bands=False)
    monkeypatch.setattr(openvino_bands, "MOST_WHOLE", 1 << 21)
    usual = replace(SIZES, pixels=1024**2)
    at_once, over_bands = runner.footprint(usual), runner.streamed(usual)
    assert over_bands is not None
    assert over_bands.working < at_once.working
    monkeypatch.setattr(openvino_bands, "MOST_WHOLE", 2 * 7 * 6 * 64 - 1)  # floats are in float32
    assert runner.streamed(usual) is None
    assert runner.footprint(usual) == over_bands
    runner({"latents": latents})
    assert runner._segments is not None


@pytest.mark.parametrize("recipe", ["int8", KEPT])
def test_eight_bits_stay_near_and_do_not_depend_on_the_bands_height(
    recipe: str, pair: VaePair, latents: np.ndarray, expected: np.ndarray, quantize: Quantize, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = []
    for index, numbers in enumerate((bands.BAND_BYTES, SMALL)):
        monkeypatch.setattr(bands, "BAND_BYTES", numbers)
        folder = tmp_path / str(index)
        folder.mkdir()
        found.append(np.asarray(lowered(pair, quantize(recipe), folder)({"latents": latents})["image"]))
        assert apart(found[-1], expected) < OPENVINO_DECODER_RELATIVE
    # A last bit decides to which side a number is rounded, and eight bits have large steps.
    assert apart(found[1], found[0]) < OPENVINO_BANDS_ROUNDED


def test_pictures_do_not_depend_on_threads_neighbours_or_memory(
    pair: VaePair, latents: np.ndarray, quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", SMALL)
    runner = lowered(pair, quantize("int8"), tmp_path)
    both = np.asarray(runner({"latents": latents})["image"])
    assert np.array_equal(both[1:], runner({"latents": latents[1:]})["image"])
    other = OpenVinoBandsRunner(tmp_path, "vae_decoder", runner._entry, OpenVinoDevice(threads=2))
    other.load_streamed()
    assert (runner.lanes, other.lanes) == (1, 2)
    monkeypatch.setattr(openvino_bands, "STORE_BYTES", 0)
    assert np.array_equal(both, other({"latents": latents})["image"])


@pytest.mark.parametrize(("limit", "hints"), [("", {None, "f32"}), ("AVX512_CORE_VNNI", {"f32"})])
def test_what_multiplies_floats_may_do_so_in_bfloat16_and_not_where_onednn_is_told_to_leave_it(
    limit: str, hints: set[str | None], pair: VaePair, latents: np.ndarray, quantize: Quantize, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runner = lowered(pair, quantize(KEPT), tmp_path)
    runner._entry = replace(runner._entry, formats={"w8a8_static_signed": ()})  # one of floats asks in any case
    floats = [segment.value for segment in runner.program.segments if segment.floats]
    assert sum("upsamplers" in value for value in floats) == 3
    assert sum("attentions.0/Add" in value for value in floats) == 1
    assert not any("conv1" in value or value == runner.program.output for value in floats)
    compile_model, asked = Core.compile_model, []

    def noted(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        asked.append(settings.get("INFERENCE_PRECISION_HINT"))
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(Core, "compile_model", noted)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    runner({"latents": latents[:1]})
    assert set(asked) == hints
    assert asked.count(None) == (len(floats) if None in hints else 0)


def test_between_eight_bits_floats_are_kept_in_bfloat16_but_for_what_comes_in_and_goes_out(
    pair: VaePair, latents: np.ndarray, quantize: Quantize, tmp_path: Path
) -> None:
    kept = {}
    for recipe in ("int8", "fp32"):
        folder = tmp_path / recipe
        folder.mkdir()
        program = lowered(pair, quantize(recipe), folder).program
        types = {name: value.dtype for name, value in program.values.items()}
        assert {types.pop(program.input), types.pop(program.output)} == {"float32"}
        kept[recipe] = set(types.values())
        assert program.band_numbers * (2 if recipe == "int8" else 4) == bands.BAND_BYTES
    assert kept == {"int8": {"bfloat16"}, "fp32": {"float32"}}


def test_it_says_what_it_takes_without_loading_anything(pair: VaePair, quantize: Quantize, tmp_path: Path) -> None:
    runner = lowered(pair, quantize("fp32"), tmp_path, over_bands=False)
    found = [runner.footprint(Sizes(rows=1, tokens=77, steps=1, pixels=side**2)) for side in (64, 256, 1024)]
    assert [f.working for f in found] == sorted({f.working for f in found})
    assert not runner.loaded


def test_it_is_ended_in_its_middle_and_goes_on(pair: VaePair, quantize: Quantize, tmp_path: Path) -> None:
    runner = lowered(pair, quantize("fp32"), tmp_path, threads=2)
    small, large = ({"latents": np.ones((1, 4, side, side), np.float32)} for side in (4, 160))
    before = runner(small)["image"]
    token = threading.Event()
    timer = threading.Timer(0.2, token.set)
    timer.start()
    with Ending(token).in_effect(), pytest.raises(Ended):
        runner(large)
    assert np.array_equal(runner(small)["image"], before)


def test_what_another_process_has_loaded_is_left_behind(
    pair: VaePair, latents: np.ndarray, quantize: Quantize, tmp_path: Path
) -> None:
    runner = lowered(pair, quantize("fp32"), tmp_path)
    before, segments = runner({"latents": latents})["image"], runner._segments
    runner.leave_behind()
    assert not runner.loaded
    runner.load_streamed()
    assert np.array_equal(runner({"latents": latents})["image"], before)
    assert runner._segments is not segments


def test_what_does_not_fit_is_refused(pair: VaePair, quantize: Quantize, tmp_path: Path) -> None:
    runner = lowered(pair, quantize("fp32"), tmp_path)

    def altered(name: str, content: str) -> OpenVinoBandsRunner:
        (tmp_path / name).write_text(content)
        files = tuple(entry_of(tmp_path, file.name) for file in runner._entry.files)
        made = OpenVinoBandsRunner(
            tmp_path, "vae_decoder", replace(runner._entry, files=files), OpenVinoDevice(threads=1)
        )
        made.load_streamed()
        return made

    text = (tmp_path / BANDS_FILE).read_text()
    with pytest.raises(IntegrityError, match=r"is for ONNX Runtime, engine\.json names OpenVINO"):
        altered(BANDS_FILE, text.replace('"channels_last": true,', "")).footprint(SIZES)
    (tmp_path / BANDS_FILE).write_text(text)
    file = read_bands(tmp_path / BANDS_FILE).segments[3].file
    with pytest.raises(IncompatibleError, match=rf"OpenVINO .* cannot compile .*{file}"):
        altered(file, "nothing")({"latents": np.ones((1, 4, 4, 4), np.float32)})
    with pytest.raises(IntegrityError, match=rf"{file} has 7 bytes"):
        OpenVinoBandsRunner(tmp_path, "vae_decoder", runner._entry, OpenVinoDevice(threads=1)).load()
