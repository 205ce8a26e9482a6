"""LoRAs and ControlNets on an engine in half precision: as on one in float32."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.adapters.pairs import Lora, Pair
from pocketxl.engine.control import folders
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.memory.controls import PREFIX
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.adapted import openings_of
from pocketxl.engine.runners.ort import OrtDevice
from pocketxl.export.reference.parity import psnr_db

from ....fixtures.controlnets import edges
from ....fixtures.loras import known
from ....tolerances import HALF_PICTURE_DB, SAME_PICTURE_DB
from .conftest import AsOnAGpu

HEIGHT, WIDTH = 64, 96
CALL: dict[str, Any] = {
    "prompt": "a red apple",
    "seed": 7,
    "num_inference_steps": 3,
    "height": HEIGHT,
    "width": WIDTH,
    "output_type": "np",
}
TOUCHED = ("base/unet", "base/conditioner", "refiner/unet", "text_encoder_2")
Folders = Mapping[str, tuple[Path, Path]]


def lora_of(pipe: Pipeline) -> Lora:
    """Random pairs beside every linear layer and convolution that takes one."""
    random, pairs = np.random.default_rng(3), {}
    for component in TOUCHED:
        openings = openings_of(pipe.runners[component])
        assert openings is not None
        pairs[component] = {
            layer: Pair(
                down=random.standard_normal((2, *shape[1:]), np.float32) / np.float32(np.prod(shape[1:]) ** 0.5),
                up=random.standard_normal((shape[0], 2), np.float32) * np.float32(0.1),
            )
            for layer, shape in openings.shapes(tuple(openings.layers)).items()
        }
    return Lora(name="all", pairs=pairs, digest="all")


def picture(
    engine: Path,
    folder: Path,
    *,
    lora: bool = False,
    nets: Folders | None = None,
    provider: str | None = None,
    **more: Any,
) -> np.ndarray:
    controlnets = {name: built for name, (_, built) in (nets or {}).items()}
    options: dict[str, Any] = {"control_image": {name: edges(HEIGHT, WIDTH) for name in controlnets}} if nets else {}
    with (
        Pipeline.load(engine, threads=1, provider=provider, controlnets=controlnets) as pipe,
        known(pipe, folder, [lora_of(pipe)] if lora else []) as files,
    ):
        found: np.ndarray = pipe(**CALL, **options, **more, loras=dict.fromkeys(files, 0.7)).images[0]
        return found


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return psnr_db(float(np.square(one - other).mean()), 1.0)


@pytest.mark.parametrize("kind", ["lora", "nets", "deep"])
def test_what_adapters_change_is_that_of_float32(
    kind: str, half_engine: Path, tiny_engine: Path, tiny_controlnets: Folders, tmp_path: Path
) -> None:
    kinds: Mapping[str, Any] = {"lora": {"lora": True}, "nets": {"nets": tiny_controlnets}, "deep": {"deep_cache": 2}}
    adapted = kinds[kind]
    expected = picture(tiny_engine, tmp_path, **adapted)
    found, plain = picture(half_engine, tmp_path, **adapted), picture(half_engine, tmp_path)
    assert decibels(found, plain) < 40
    assert decibels(found, expected) > HALF_PICTURE_DB


def test_as_on_a_gpu_with_both_sides_of_guidance_in_one_call(
    half_engine: Path, tiny_controlnets: Folders, tmp_path: Path, as_on_a_gpu: AsOnAGpu
) -> None:
    expected = picture(half_engine, tmp_path, lora=True, nets=tiny_controlnets)
    with as_on_a_gpu() as provider:
        found = picture(half_engine, tmp_path, lora=True, nets=tiny_controlnets, provider=provider)
    assert decibels(found, expected) > SAME_PICTURE_DB


def test_what_a_gpu_cannot_compute_stays_on_the_processor_beside_it(
    half_engine: Path, tiny_controlnets: Folders, as_on_a_gpu: AsOnAGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {name: built for name, (_, built) in tiny_controlnets.items()}
    for kind, wanted in (("wf32", "gpu"), ("w8a8", "cpu")):
        with as_on_a_gpu() as provider, monkeypatch.context() as patched:
            read = read_manifest

            def told(folder: Path, kind: str = kind, read: Any = read) -> Any:
                manifest = read(folder)
                entries = {name: replace(entry, formats={kind: 1}) for name, entry in manifest.components.items()}
                return replace(manifest, components=entries)

            patched.setattr(folders, "read_manifest", told)
            with Pipeline.load(half_engine, threads=1, provider=provider, controlnets=given) as pipe:
                devices = {name: runner.device for name, runner in pipe.runners.items()}
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for name, device in devices.items():
            assert isinstance(device, OrtDevice)
            found[name.startswith(PREFIX)].add(device.provider.name)
        assert found == {False: {"gpu"}, True: {wanted}}
