"""A VAE for `rtx` in segments over bands gives the same picture as its whole graph, on a card that is host memory.

The compiler is left out: an engine is the ONNX file that it would read, and the stand-in of the library runs it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import pytest
import torch

from pocketxl.engine.bands.read import BANDS_FILE, read_bands
from pocketxl.engine.bands.sizes import stored_by_segment, stored_bytes
from pocketxl.engine.errors import IntegrityError, MemoryBudgetError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.models.vae_encoder import VaeEncoder
from pocketxl.engine.runners import tensorrt, tensorrt_bands
from pocketxl.engine.runners.base import Sizes, call
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.runners.tensorrt import TensorRTRunner
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.target import Lowered
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.rtx import bands, process, target
from pocketxl.export.targets.rtx.builder import Order
from pocketxl.export.targets.rtx.profiles import RANGES
from pocketxl.export.targets.rtx.target import RtxTarget

from ....fixtures.banded import encoder_weights
from ....fixtures.calibration import observe
from ....fixtures.cuda_on_host import HostDriver
from ....fixtures.networks import VaePair, vae_pair
from ....fixtures.onnx_program import OnnxProgram
from ....fixtures.onnx_run import StateDict
from ....fixtures.tensorrt_on_host import Library
from ....tolerances import BANDS_EIGHT_BITS, BANDS_HALVES

SMALL = 1 << 9
"""A row or two in a band."""
ARENA = 1000
SIZES = Sizes(rows=1, tokens=77, steps=1, pixels=64 * 64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Built:
    """An engine's folder of one component, what lowering said of it, and what its runner would be told."""

    folder: Path
    name: str
    lowered: Lowered
    entry: ComponentEntry


@pytest.fixture(scope="module")
def pair() -> VaePair:
    torch.manual_seed(5)
    return vae_pair()


@pytest.fixture
def latents() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 4, 7, 6), dtype=np.float32)


class Build(Protocol):
    """Build one half of the VAE by a recipe."""

    def __call__(self, recipe: str, half: str = "vae_decoder") -> Built: ...


@pytest.fixture
def build(pair: VaePair, latents: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    def compiled(order: Order, tell: Callable[[str], None]) -> None:
        tell("compiling")
        onnx.save(onnx.load(order.onnx), order.engine)  # with its weights inside
        given = {value.name for value in onnx.load(order.onnx, load_external_data=False).graph.input}
        assert set(order.profiles) == given
        assert all(low <= best <= high for p in order.profiles.values() for low, best, high in zip(*p, strict=True))

    monkeypatch.setattr(process, "build_aside", compiled)
    monkeypatch.setattr(RtxTarget, "memory", lambda *_: ActivationModel(terms={"batch*pixels": 100.0}))
    monkeypatch.setattr(bands, "read_compiled", lambda engine: engine)
    monkeypatch.setattr(bands, "arena_at", lambda engine, shapes: ARENA)
    monkeypatch.setattr(target, "import_tensorrt", lambda library: None)
    monkeypatch.setattr(bands, "BAND_NUMBERS", SMALL)
    monkeypatch.setattr(bands, "SCORES", SMALL)
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))

    def made(recipe: str, half: str = "vae_decoder") -> Built:
        rtx, decodes = RtxTarget(name="rtx-sm89", architectures=("sm89",), band_bytes=0), half == "vae_decoder"
        spec = pair.architecture.decoder() if decodes else pair.architecture.encoder()
        state = StateDict(pair.ours.state_dict()) if decodes else encoder_weights(pair)
        folder, aside = tmp_path / recipe / half, tmp_path / recipe / "aside"
        folder.mkdir(parents=True)
        aside.mkdir()
        module = VaeDecoder if decodes else VaeEncoder
        model = export_master(half, lambda: module(pair.architecture), spec, dtype=torch.float16)
        known = Quantization(
            recipe=fitted(RECIPES[recipe], rtx),
            role=spec.role,
            input_scales=input_scales(pair, state, latents) if decodes else {},
        )
        lowered = rtx.lower(half, spec, model, state, known, folder, aside)
        files = tuple(entry_of(folder.parent, f"{half}/{file.name}") for file in sorted(folder.iterdir()))
        entry = ComponentEntry(
            spec=spec, runner="tensorrt", files=files, weight_bytes=sum(file.size for file in files),
            activation=lowered.activation, streaming=lowered.streaming, architectures=lowered.architectures,
        )  # fmt: skip
        return Built(folder=folder.parent, name=half, lowered=lowered, entry=entry)

    return made


@pytest.fixture
def driver() -> HostDriver:
    return HostDriver()


@pytest.fixture
def runner(driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> Callable[[Built], TensorRTRunner]:
    library = Library(driver, program=OnnxProgram.of)
    for module in (tensorrt, tensorrt_bands):
        monkeypatch.setattr(module, "import_tensorrt", library.module)
    device = CudaDevice()
    device.__dict__["driver"] = driver
    return lambda built: TensorRTRunner(built.folder, built.name, built.entry, device)


def input_scales(pair: VaePair, state: StateDict, latents: np.ndarray) -> dict[str, Any]:
    """Each layer's, by the largest input that it has seen."""
    reference = StreamedModule(lambda: VaeDecoder(pair.architecture), pair.architecture.decoder(), state)
    seen = observe(reference, [{"latents": latents}]).layers
    return {name: np.float32(np.abs(layer.input_range).max() / 127) for name, layer in seen.items()}


def apart(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("recipe", ["fp16", "int8-weight"])
def test_a_picture_over_bands_is_the_whole_graph_s(
    recipe: str,
    build: Build,
    runner: Callable[[Built], TensorRTRunner],
    latents: np.ndarray,
    driver: HostDriver,
) -> None:
    vae = runner(build(recipe))
    whole = np.asarray(vae({"latents": latents})["image"])
    vae.release()
    vae.load_streamed()
    picture = vae({"latents": latents})["image"]
    assert picture.dtype == np.float32
    assert apart(picture, whole) < BANDS_HALVES
    vae.release()
    assert not vae.loaded
    assert not driver.memory_now
    assert np.array_equal(vae({"latents": latents})["image"], whole)  # and as a whole again
    vae.device.close()


def test_eight_bits_over_bands_are_as_near_to_diffusers_as_the_whole_graph_s(
    pair: VaePair, build: Build, runner: Callable[[Built], TensorRTRunner], latents: np.ndarray
) -> None:
    """Not the same numbers: a last bit decides to which side one is rounded, and eight bits have large steps."""
    vae = runner(build("int8"))
    whole = vae({"latents": latents})["image"]
    vae.release()
    vae.load_streamed()
    picture = vae({"latents": latents})["image"]
    expected = pair.theirs.decode(torch.from_numpy(latents)).sample.numpy()
    assert apart(picture, expected) < BANDS_EIGHT_BITS * apart(whole, expected)
    vae.device.close()


def test_halves_over_bands_are_diffusers_own_picture(
    pair: VaePair, build: Build, runner: Callable[[Built], TensorRTRunner], latents: np.ndarray
) -> None:
    vae = runner(build("fp16"))
    vae.load_streamed()
    expected = pair.theirs.decode(torch.from_numpy(latents)).sample.numpy()
    assert apart(vae({"latents": latents})["image"], expected) < BANDS_HALVES
    vae.device.close()


@pytest.mark.parametrize("recipe", ["fp16", "int8-weight"])
def test_an_encoder_over_bands_is_the_whole_graph_and_diffusers(
    recipe: str, pair: VaePair, build: Build, runner: Callable[[Built], TensorRTRunner], driver: HostDriver
) -> None:
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 56, 40)).astype(np.float32)
    vae = runner(build(recipe, "vae_encoder"))
    whole = call(vae, {"image": image})
    vae.release()
    vae.load_streamed()
    found = call(vae, {"image": image})
    theirs = pair.theirs.encode(torch.from_numpy(image)).latent_dist
    for name, wanted in (("mean", theirs.mean), ("logvar", theirs.logvar)):
        assert found[name].dtype == np.float32
        assert apart(found[name], whole[name]) < BANDS_HALVES
        assert recipe != "fp16" or apart(found[name], wanted.numpy()) < BANDS_HALVES
    vae.release()
    assert not driver.memory_now
    vae.device.close()


def test_an_encoder_s_segments_are_told_how_many_rows_a_halving_reads(pair: VaePair) -> None:
    spec = pair.architecture.encoder()
    program, _ = bands.cut_for_bands(
        export_master("vae_encoder", lambda: VaeEncoder(pair.architecture), spec, dtype=torch.float16)
    )
    halving = [s for s in program.segments if s.reads[0].downward]
    least, most = RANGES["height"].least, RANGES["height"].most
    for segment, scale in zip(halving, (8, 4, 2), strict=True):
        ((low, _, high),) = bands.band_profiles(program, segment).values()
        assert low[2:] == (3, scale * least)  # for one row of its own
        assert high[2:] == (scale * most + 1, scale * most)


@pytest.mark.parametrize(("half", "name", "side"), [("vae_decoder", "latents", 8), ("vae_encoder", "image", 64)])
def test_what_is_told_of_memory_is_enough_and_the_whole_is_counted_without_segments(
    half: str,
    name: str,
    side: int,
    build: Build,
    runner: Callable[[Built], TensorRTRunner],
    driver: HostDriver,
) -> None:
    built = build("fp16", half)
    vae = runner(built)
    streaming = built.lowered.streaming
    assert streaming is not None
    assert streaming.program == BANDS_FILE
    segments = read_bands(built.folder / half / BANDS_FILE).segments
    assert [part.file for part in streaming.segments] == [segment.file for segment in segments]
    told = vae.streamed(SIZES)
    assert told is not None
    assert told.pool == "device"
    assert told.weights == sum((built.folder / half / s.file).stat().st_size for s in segments)
    assert vae.footprint(SIZES).weights == (built.folder / half / "model.engine").stat().st_size
    vae.load_streamed()
    before = driver.taken
    driver.most = 0
    (given,) = built.entry.spec.inputs
    vae({name: np.zeros((1, int(given.shape[1]), side, side), np.float32)})
    scratch = 4096 + 16 * 8 * 8 * 8 * 64  # the stand-in's own
    assert driver.most - before <= told.working - ARENA + scratch
    vae.device.close()


def test_the_scratch_of_a_segment_is_gone_before_the_next_keeps_more(
    build: Callable[[str], Built], runner: Callable[[Built], TensorRTRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention works with most, where a picture is smallest."""
    built = build("fp16")
    vae = runner(built)
    vae.load_streamed()
    fresh: list[bool] = []
    real = CudaDevice.scratch

    def noted(self: CudaDevice, size: int) -> tuple[int, int]:
        fresh.append(self._scratch is None)
        return real(self, size)

    monkeypatch.setattr(CudaDevice, "scratch", noted)
    vae({"latents": np.zeros((1, 4, 8, 8), np.float32)})
    segments = read_bands(built.folder / "vae_decoder" / BANDS_FILE).segments
    assert sum(fresh) == len(segments) < len(fresh), "bands of one segment share it"
    vae.device.close()


def test_memory_is_told_for_each_segment_with_what_is_kept_meanwhile(
    build: Callable[[str], Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build("fp16").folder / "vae_decoder"
    program = read_bands(folder / BANDS_FILE)
    kept = stored_by_segment(program, 64)
    largest, least = kept.index(max(kept)), kept.index(min(kept))
    for index, told in ((largest, 5000), (least, 0)):
        file = program.segments[index].file
        monkeypatch.setattr(bands, "read_compiled", lambda engine: engine.name)
        monkeypatch.setattr(bands, "arena_at", lambda name, shapes, file=file: 5000 * (name == file))
        monkeypatch.setattr(bands, "_bytes", lambda program, name, shape: 0)
        assert bands._beside(program, folder)(64) == told
        assert stored_bytes(program, 64) == max(kept) > min(kept) + 5000


def test_a_component_whose_segments_are_gone_or_altered_is_an_error_and_the_whole_still_runs(
    build: Build, runner: Callable[[Built], TensorRTRunner], latents: np.ndarray
) -> None:
    built = build("fp16")
    vae = runner(built)
    (built.folder / "vae_decoder/segment_03.engine").write_bytes(b"altered")
    with pytest.raises(IntegrityError, match="segment_03"):
        vae.load_streamed()
    assert not vae.loaded
    assert vae({"latents": latents})["image"].shape == (1, 3, 56, 48)
    vae.device.close()


def test_a_full_gpu_leaves_nothing_behind(
    build: Build, runner: Callable[[Built], TensorRTRunner], latents: np.ndarray, driver: HostDriver
) -> None:
    vae = runner(build("fp16"))
    vae.load_streamed()
    driver.total = driver.taken + 10_000
    with pytest.raises(MemoryBudgetError):
        vae({"latents": latents})
    driver.total = 1 << 30
    assert np.isfinite(np.asarray(vae({"latents": latents})["image"])).all()
    vae.release()
    assert not driver.memory_now
    vae.device.close()


def test_only_targets_for_one_group_of_generations_have_segments() -> None:
    assert TARGETS["rtx"].band_bytes  # type: ignore[attr-defined]
    assert TARGETS["tensorrt"].band_bytes is None  # type: ignore[attr-defined]
