"""A VAE in segments is the VAE: against diffusers and its own uncut graph, for every recipe and band height."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pocketxl.engine.bands.read import read_bands
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ComponentEntry
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.runners.ort import OrtDevice
from pocketxl.engine.runners.ort_bands import BandsRunner
from pocketxl.export.bands import write as writing
from pocketxl.export.graph.doubled_conv import DOUBLED_CONV
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.graph.patch_conv import PATCH_CONV
from pocketxl.export.graph.stand_ins import expand_all, is_stand_in
from pocketxl.export.quantize.formats import Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.ranges import fit_ranges
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cpu import conv_patches
from pocketxl.export.targets.cpu.target import CpuTarget, rewrite

from ...fixtures.calibration import observe
from ...fixtures.networks import VaePair, vae_pair
from ...fixtures.onnx_run import StateDict, run_onnx
from ...tolerances import BANDS_RELATIVE, BANDS_ROUNDED

KEPT = "int8 with floats behind doublings"
RECIPE_NAMES = ("fp32", "int8", KEPT, "int8-weight")
SMALL = 1 << 9
"""Numbers in a band: a row or two at a time."""


@pytest.fixture(scope="module")
def pair() -> VaePair:
    torch.manual_seed(5)
    return vae_pair()


@pytest.fixture(scope="module")
def latents() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 4, 7, 6), dtype=np.float32)


@pytest.fixture(scope="module")
def quantization(pair: VaePair, latents: np.ndarray) -> Callable[[str], Quantization]:
    weights, spec = StateDict(pair.ours.state_dict()), pair.architecture.decoder()
    reference = StreamedModule(lambda: VaeDecoder(pair.architecture), spec, weights)
    seen = observe(reference, [{"latents": latents}]).layers
    convs = {n: m for n, m in pair.ours.named_modules() if isinstance(m, nn.Conv2d)}
    ranges: dict[str, Any] = {
        n: fit_ranges(m.weight.flatten(1).numpy(), None if m.bias is None else m.bias.numpy(), seen[n])
        for n, m in convs.items()
    }
    target = CpuTarget()  # with what it does in a wide VAE, where a test says that this is one
    doublings = [(Kind.CONV, name) for name in convs if "upsamplers" in name]

    def found(name: str) -> Quantization:
        recipe = target.suited(fitted(RECIPES[name.split()[0]], target), pair.architecture)
        if name == KEPT:
            recipe = recipe.keeping(spec.role, doublings)
        return Quantization(recipe=recipe, role=spec.role, ranges=ranges)

    return found


def lowered(pair: VaePair, quantization: Quantization, out: Path, threads: int = 1) -> BandsRunner:
    spec = pair.architecture.decoder()
    model = export_master("vae_decoder", lambda: VaeDecoder(pair.architecture), spec)
    made = CpuTarget(band_bytes=0).lower(
        "vae_decoder", spec, model, StateDict(pair.ours.state_dict()), quantization, out, out
    )
    assert made.runner == "ort_bands"
    files = tuple(entry_of(out, file.name) for file in sorted(out.iterdir()))
    entry = ComponentEntry(
        spec=spec, runner=made.runner, files=files, weight_bytes=sum(f.size for f in files), activation=made.activation
    )
    return BandsRunner(out, "vae_decoder", entry, OrtDevice(threads=threads))


def apart(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("numbers", [writing.BAND_NUMBERS, SMALL])
@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_it_is_what_the_uncut_graph_gives(
    recipe: str,
    numbers: int,
    wide: bool,
    pair: VaePair,
    latents: np.ndarray,
    quantization: Callable[[str], Quantization],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if wide and recipe == "int8-weight":
        pytest.skip("weights alone in int8 are convolved as they are")
    monkeypatch.setattr(writing, "BAND_NUMBERS", numbers)
    monkeypatch.setattr(conv_patches, "LEAST", 1 if wide else conv_patches.LEAST)
    model = export_master("vae_decoder", lambda: VaeDecoder(pair.architecture), pair.architecture.decoder())
    attach(model, StateDict(pair.ours.state_dict()))
    rewrite(model, quantization(recipe))
    stand_ins = {node.op_type for node in model.graph if is_stand_in(node)}
    assert (DOUBLED_CONV in stand_ins, PATCH_CONV in stand_ins) == (
        wide and recipe != "int8",
        wide and recipe != "fp32",
    )
    expand_all(model.graph)
    (tmp_path / "uncut").mkdir()
    (tmp_path / "cut").mkdir()
    import onnx_ir as ir
    import onnxruntime

    path = tmp_path / "uncut" / "model.onnx"
    ir.save(model, path, external_data="model.onnx.data")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"latents": latents})[0]
    actual = lowered(pair, quantization(recipe), tmp_path / "cut")({"latents": latents})["image"]
    # A last bit decides to which side a number is rounded, and eight bits have large steps.
    assert apart(actual, expected) < (BANDS_ROUNDED if recipe in ("int8", KEPT) else BANDS_RELATIVE)


def test_floats_are_diffusers_own_picture(
    pair: VaePair, latents: np.ndarray, quantization: Callable[[str], Quantization], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(writing, "BAND_NUMBERS", SMALL)
    monkeypatch.setattr("pocketxl.engine.runners.ort_bands.STORE_BYTES", 5000)  # most of it goes through the file
    expected = pair.theirs.decode(torch.from_numpy(latents)).sample.numpy()
    assert apart(lowered(pair, quantization("fp32"), tmp_path)({"latents": latents})["image"], expected) < 1e-4


@pytest.mark.parametrize("recipe", ["fp32", "int8", "int8 in patches"])
def test_pictures_do_not_depend_on_threads_neighbours_or_memory(
    recipe: str, pair: VaePair, latents: np.ndarray, quantization: Callable[[str], Quantization], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(writing, "BAND_NUMBERS", SMALL)
    monkeypatch.setattr(conv_patches, "LEAST", 1 if "patches" in recipe else conv_patches.LEAST)
    runner = lowered(pair, quantization(recipe.split()[0]), tmp_path)
    both = np.asarray(runner({"latents": latents})["image"])
    assert np.array_equal(both[1:], runner({"latents": latents[1:]})["image"])
    other = BandsRunner(tmp_path, "vae_decoder", runner._entry, OrtDevice(threads=3))
    monkeypatch.setattr("pocketxl.engine.runners.ort_bands.STORE_BYTES", 0)
    assert np.array_equal(both, other({"latents": latents})["image"])


def test_weights_lie_there_once_and_a_segment_has_one_convolution_of_pixels(
    pair: VaePair, quantization: Callable[[str], Quantization], tmp_path: Path
) -> None:
    import onnx

    lowered(pair, quantization("int8"), tmp_path)
    program = read_bands(tmp_path / "bands.json")
    files = {segment.file for segment in program.segments}
    assert {p.name for p in tmp_path.iterdir()} == files | {"bands.json", "model.onnx.data"}
    for file in files:
        nodes = onnx.load(tmp_path / file, load_external_data=False).graph.node
        kernels = [list(a.ints) for n in nodes for a in n.attribute if a.name == "kernel_shape"]
        assert kernels.count([3, 3]) <= 1
        assert "InstanceNormalization" not in {n.op_type for n in nodes}
    weights = sum(p.numel() for p in pair.ours.parameters() if p.ndim > 1)
    assert (tmp_path / "model.onnx.data").stat().st_size < 4 * weights
    assert {v.dtype for v in program.values.values() if v.norm} == {"uint8", "float32"}


def test_a_convolution_with_strides_has_no_bands(tmp_path: Path) -> None:
    from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
    from pocketxl.export.bands.write import write_bands

    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, stride=2, padding=1)

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(latents)
            return y

    spec = ComponentSpec(
        role=Role.VAE_DECODER,
        inputs=(TensorSpec(name="latents", shape=("batch", 4, "height", "width")),),
        outputs=(TensorSpec(name="image", shape=("batch", 4, "image_height", "image_width")),),
    )
    module = Strided()
    model = export_master("vae_decoder", lambda: Strided().to("meta"), spec)
    run_onnx(model, module.state_dict(), {"latents": np.zeros((1, 4, 8, 8), np.float32)}, tmp_path)
    with pytest.raises(ValueError, match="has no bands"):
        write_bands(tmp_path / "model.onnx")
