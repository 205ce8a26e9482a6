"""What holds without a GPU: hashes come first, and a machine without a driver is told so. The rest is marked `gpu`."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.runners.tensorrt import ENGINE_FILE, CudaDevice, TensorRTRunner
from pocketxl.engine.specs import ComponentSpec

from ...tolerances import TENSORRT_FP16_RELATIVE


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def runner(folder: Path, spec: ComponentSpec) -> TensorRTRunner:
    entry = ComponentEntry(
        spec=spec,
        runner="tensorrt",
        files=(entry_of(folder, ENGINE_FILE),),
        weight_bytes=(folder / ENGINE_FILE).stat().st_size,
        activation=ActivationModel(terms={}),
    )
    return TensorRTRunner(folder, "vae_decoder", entry, CudaDevice())


def test_an_altered_engine_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / ENGINE_FILE).write_bytes(b"engine")
    made = runner(tmp_path, VaeArchitecture().decoder())
    (tmp_path / ENGINE_FILE).write_bytes(b"engina")
    with pytest.raises(IntegrityError, match=ENGINE_FILE):
        made.load()
    assert not made.loaded


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_a_machine_without_a_driver_is_told_so(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / ENGINE_FILE).write_bytes(b"engine")
    made = runner(tmp_path, VaeArchitecture().decoder())
    with pytest.raises(IncompatibleError, match=r"need one and its driver.*--target cpu"):
        made({"latents": np.zeros((1, 4, 8, 8), np.float32)})
    assert not made.loaded
    made.release()


@pytest.mark.gpu
@pytest.mark.skipif(not has_driver(), reason="needs an NVIDIA GPU")
def test_the_vae_decoder_equals_the_module(tmp_path: Path) -> None:
    """Builds for the GPU at hand; Ada is what the shipped test builds for, so others need their own target."""
    import torch

    from pocketxl.export.graph.master import export_master
    from pocketxl.export.quantize.quantization import Quantization
    from pocketxl.export.quantize.recipes import RECIPES
    from pocketxl.export.targets import TARGETS

    from ...fixtures.networks import vae_pair

    pair = vae_pair()
    spec = pair.architecture.decoder()
    weights = type("Weights", (), {"tensor": staticmethod(pair.ours.state_dict().__getitem__)})()
    master = export_master("vae_decoder", lambda: type(pair.ours)(pair.architecture), spec, dtype=torch.float16)
    (tmp_path / "aside").mkdir()
    known = Quantization(recipe=RECIPES["fp16"], role=spec.role)
    TARGETS["rtx-sm89"].lower("vae_decoder", spec, master, weights, known, tmp_path, tmp_path / "aside")
    made = runner(tmp_path, spec)
    for height, width in ((8, 16), (16, 8), (8, 16)):  # shapes change back and forth, buffers grow and stay
        latents = np.random.default_rng(height).standard_normal((1, 4, height, width)).astype(np.float32)
        expected = pair.ours(torch.from_numpy(latents)).numpy()
        image = made({"latents": latents})["image"]
        assert np.linalg.norm(image - expected) / np.linalg.norm(expected) < TENSORRT_FP16_RELATIVE
    made.release()
    assert not made.loaded
