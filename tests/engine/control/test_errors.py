"""Whatever is wrong with a ControlNet is one sentence, before anything is loaded, and the pipeline stays as it was."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, IntegrityError, PocketXLError, RequestError, StorageError
from pocketxl.engine.pipeline import Pipeline

from ...fixtures.controlnets import edges

HINT = edges(64, 64)
Folders = Mapping[str, tuple[Path, Path]]


@pytest.fixture(scope="module")
def steered(tiny_engine: Path, tiny_controlnets: Folders) -> Iterator[Pipeline]:
    folders = {name: built for name, (_, built) in tiny_controlnets.items()}
    with Pipeline.load(tiny_engine, threads=1, controlnets=folders) as pipe:
        yield pipe


WRONG: Mapping[str, tuple[Mapping[str, Any], type[PocketXLError], str]] = {
    "no such name": ({"control_image": {"pose": HINT}}, RequestError, "'pose'; loaded are canny, depth"),
    "one picture for two": ({"control_image": HINT}, RequestError, "2 ControlNets are loaded"),
    "three for two": ({"control_image": [HINT] * 3}, RequestError, "3 values for 2 ControlNets"),
    "no picture": ({"controlnet_conditioning_scale": 0.5}, RequestError, "without control_image"),
    "no file": ({"control_image": {"canny": "nowhere.png"}}, StorageError, "nowhere.png cannot be read"),
    "what is no picture": ({"control_image": {"canny": __file__}}, IntegrityError, "no picture"),
    "another thing": ({"control_image": {"canny": 7}}, RequestError, "a path, a PIL picture or an array"),
    "an array of another shape": ({"control_image": {"canny": np.zeros((4, 4, 2))}}, RequestError, "(4, 4, 2)"),
    "floats beyond one": (
        {"control_image": {"canny": np.full((64, 64, 3), 2.0)}},
        RequestError,
        "floats must be in [0, 1]",
    ),
    "whole numbers": ({"control_image": {"canny": np.zeros((64, 64, 3), np.int32)}}, RequestError, "int32"),
    "a scale beyond": (
        {"control_image": {"canny": HINT}, "controlnet_conditioning_scale": 11.0},
        RequestError,
        "controlnet_conditioning_scale is 11; it must be 0 to 10",
    ),
    "a scale below": (
        {"control_image": {"canny": HINT}, "controlnet_conditioning_scale": -0.5},
        RequestError,
        "it must be 0 to 10",
    ),
    "a scale that is no number": (
        {"control_image": {"canny": HINT}, "controlnet_conditioning_scale": {"canny": "much"}},
        RequestError,
        "give a number",
    ),
    "the end first": (
        {"control_image": {"canny": HINT}, "control_guidance_start": 0.6, "control_guidance_end": 0.4},
        RequestError,
        "the start must come before the end",
    ),
    "an end beyond": (
        {"control_image": {"canny": HINT}, "control_guidance_end": 1.5},
        RequestError,
        "control_guidance_end is 1.5; it must be 0 to 1",
    ),
    "an unknown preprocessor": (
        {"control_image": {"canny": HINT}, "control_preprocess": "hed"},
        RequestError,
        "'hed'; choose canny or None",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument(steered: Pipeline, case: str) -> None:
    options, kind, words = WRONG[case]
    with pytest.raises(kind) as caught:
        steered("a red cat", **options)
    assert words in str(caught.value)
    assert not any(runner.loaded for runner in steered.runners.values())


def test_a_picture_without_any_controlnet(tiny_engine: Path) -> None:
    with Pipeline.load(tiny_engine) as pipe, pytest.raises(RequestError, match="no ControlNet is loaded"):
        pipe("a red cat", control_image=HINT)


def test_an_engine_is_no_controlnet_and_a_controlnet_no_engine(tiny_engine: Path, tiny_controlnets: Folders) -> None:
    with pytest.raises(IncompatibleError, match="is no ControlNet; build one with"):
        Pipeline.load(tiny_engine, controlnets={"canny": tiny_engine})
    with pytest.raises(IncompatibleError, match="a ControlNet, which makes no pictures alone"):
        Pipeline.load(tiny_controlnets["canny"][1])


def test_one_of_other_widths(tiny_controlnets: Folders) -> None:
    with pytest.raises(IncompatibleError, match=r"does not fit this engine: it reads text of \d+ numbers, the U-Net"):
        Pipeline.load(controlnets={"canny": tiny_controlnets["canny"][1]})


@pytest.mark.parametrize("name", ["", "a/b", "../x", 7, "-a"])
def test_a_name_that_cannot_be(tiny_engine: Path, tiny_controlnets: Folders, name: Any) -> None:
    with pytest.raises(RequestError, match="a ControlNet is called"):
        Pipeline.load(tiny_engine, controlnets={name: tiny_controlnets["canny"][1]})


def test_a_damaged_file_is_found_before_it_is_read(
    tiny_engine: Path, tiny_controlnets: Folders, tmp_path: Path
) -> None:
    from shutil import copytree

    folder = copytree(tiny_controlnets["canny"][1], tmp_path / "canny")
    weights = folder / "control" / "unet" / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with Pipeline.load(tiny_engine, controlnets={"canny": folder}) as pipe:
        with pytest.raises(IntegrityError, match="was altered"):
            pipe("a red cat", control_image=HINT, refiner=False, num_inference_steps=1, width=64, height=64)
        assert pipe("a red cat", num_inference_steps=1, width=64, height=64, output_type="latent").steps == 1
