"""A ControlNet's build: held to its own unquantized self in steered pictures of its base, cached, described."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.check import check_engine
from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.manifest import FILE_NAME, Manifest, read_manifest, verify
from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.companions.controlnet import build_controlnet

from ...fixtures.command_line import run
from ...fixtures.controlnets import edges, tiny_controlnet, write_controlnet

pytestmark = pytest.mark.usefixtures("quick_builds")
PARTS = {"control/hint_encoder", "control/conditioner", "control/unet"}
OPTIONS: Mapping[str, Any] = {
    "num_inference_steps": 4, "width": 64, "height": 64, "seed": 1, "refiner": False, "output_type": "np"
}  # fmt: skip


def built_int8(folders: Mapping[str, Path], tmp_path: Path) -> Path:
    source = write_controlnet(tmp_path)
    return build_controlnet(source, tmp_path / "int8", base=folders["base"], recipe="int8").folder


def test_in_int8_it_steers_as_in_fp32(
    tiny_folders: Mapping[str, Path],
    tiny_engine: Path,
    tiny_controlnets: Mapping[str, tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    folders = {"exact": tiny_controlnets["canny"][1], "int8": built_int8(tiny_folders, tmp_path)}
    formats = {name: set(entry.formats) for name, entry in read_manifest(folders["int8"]).components.items()}
    assert sum("w8a8" in name for name in formats["control/unet"]) == 2, "linear layers and convolutions"
    assert not any("8" in name for name in formats["control/hint_encoder"])
    hint = edges(64, 64)
    with Pipeline.load(tiny_engine, threads=1, controlnets=folders) as pipe:
        plain = pipe("a cat", **OPTIONS).images
        exact, rounded = (pipe("a cat", control_image={name: hint}, **OPTIONS).images for name in folders)
    effect, error = (float(np.square(exact - other).mean()) for other in (plain, rounded))
    assert error < effect / 30, "what 8 bits lose is small beside what it does"


def test_the_folder_is_whole_and_checks_itself(
    tiny_folders: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = built_int8(tiny_folders, tmp_path)
    manifest = read_manifest(folder)
    assert set(manifest.components) == PARTS
    assert not manifest.tokenizers
    assert all(entry.openings is None for entry in manifest.components.values()), "adapters are for engines"
    assert verify(folder).unknown == ()
    assert {check.name for check in check_engine(folder) if check.passed} == PARTS
    assert run(capsys, "inspect", folder).status == 0


def test_a_second_build_finds_it_done_and_another_recipe_says_why_not(
    tiny_folders: Mapping[str, Path], tmp_path: Path
) -> None:
    source, base = write_controlnet(tmp_path), tiny_folders["base"]
    first = build_controlnet(source, tmp_path / "out", base=base, recipe="fp32")
    again = build_controlnet(source, tmp_path / "out", base=base, recipe="fp32")
    assert not first.cached
    assert again.cached
    other = build_controlnet(source, tmp_path / "out", base=base, recipe="int8-weight")
    assert other.reasons == ("recipe: fp32 -> int8-weight",)


def test_one_that_has_not_been_trained_yet_adds_nothing(
    tiny_folders: Mapping[str, Path], tiny_engine: Path, tmp_path: Path
) -> None:
    """Its last convolutions are zero: every residual is, in 8 bits too."""
    import torch

    module = tiny_controlnet()
    for name, parameter in module.named_parameters():
        if name.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
            parameter.data = torch.zeros_like(parameter)
    module.save_pretrained(tmp_path / "fresh")
    built = build_controlnet(tmp_path / "fresh", tmp_path / "out", base=tiny_folders["base"], recipe="int8").folder
    with Pipeline.load(tiny_engine, threads=1, controlnets={"fresh": built}) as pipe:
        plain = pipe("a cat", **OPTIONS).images
        steered = pipe("a cat", control_image=edges(64, 64), **OPTIONS).images
    assert np.abs(plain - steered).max() < 1e-5


def test_one_for_another_base_is_refused_before_anything_is_read(
    tiny_folders: Mapping[str, Path], tmp_path: Path
) -> None:
    other = write_controlnet(tmp_path, "other", block_out_channels=(32, 128))
    with pytest.raises(IncompatibleError, match=r"its levels are .* wide, the U-Net's"):
        build_controlnet(other, tmp_path / "out", base=tiny_folders["base"])
    with pytest.raises(IncompatibleError, match="is a refiner"):
        build_controlnet(write_controlnet(tmp_path), tmp_path / "out", base=tiny_folders["refiner"])
    with pytest.raises(IncompatibleError, match="not for rtx"):
        build_controlnet(write_controlnet(tmp_path, "a"), tmp_path / "out", base=tiny_folders["base"], target="rtx")
    assert not (tmp_path / "out").exists()


def test_a_description_that_contradicts_itself_is_refused(
    tiny_controlnets: Mapping[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    manifest = read_manifest(tiny_controlnets["canny"][1])
    assert manifest.companion is not None
    controlnet = manifest.companion.controlnet
    assert controlnet is not None
    wrong = (
        replace(controlnet, hint_widths=(8, 8)),
        replace(controlnet, hint_widths=(8, 8, 8, 1 << 20)),
        replace(controlnet, heads=(1,)),
        replace(controlnet, cross_attention_dim=7),
        replace(controlnet, control_types=65),
        replace(controlnet, fuser_layers=1),
    )
    for numbers in wrong:
        other = replace(manifest, companion=replace(manifest.companion, controlnet=numbers))
        with pytest.raises(IntegrityError, match="contradicts itself: companion"):
            Manifest.from_json(other.to_json(), where=FILE_NAME)


def test_outlier_channels_cost_nothing(tiny_folders: Mapping[str, Path], tmp_path: Path) -> None:
    """The same network with some channels thirty times as large: smoothing takes them back, in all three parts."""
    import torch

    from benchmarks.outliers import outliers, scaled

    tame, network = write_controlnet(tmp_path), tiny_controlnet()
    state = network.state_dict()
    changes = outliers({name: tuple(tensor.shape) for name, tensor in state.items()}, factor=30.0, share=0.02)
    assert changes
    for name, change in changes.items():
        state[name] = torch.from_numpy(scaled(state[name].numpy(), change))
    network.load_state_dict(state)
    network.save_pretrained(tmp_path / "stressed")
    errors = {}
    for source in (tame, tmp_path / "stressed"):
        made = build_controlnet(source, tmp_path / f"{source.name}-int8", base=tiny_folders["base"], recipe="int8")
        errors[source.name] = made.manifest.components["control/unet"].quality["relative_error"]
    assert errors["stressed"] < 1.5 * errors["canny"]  # without smoothing four times as much
