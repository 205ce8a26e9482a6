"""ControlNet-Unions in the forms in which people have them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.export.checkpoint.controlnet import open_controlnet

from ...fixtures.controlnets import write_union

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_union(tmp_path_factory.mktemp("union"), num_control_type=8)


def changed(folder: Path, to: Path, *, without: str = "", **options: Any) -> Path:
    """The same with other options in its configuration; None takes one away. `without`: tensors that begin so."""
    to.mkdir()
    config = json.loads((folder / "config.json").read_text()) | options
    (to / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    tensors = load_file(folder / WEIGHTS)
    save_file({n: t for n, t in tensors.items() if not without or not n.startswith(without)}, to / WEIGHTS)
    return to


def test_it_is_recognised_and_of_attention_the_values_are_kept(folder: Path) -> None:
    found, tensors = open_controlnet(folder), load_file(folder / WEIGHTS)
    assert (found.architecture.control_types, found.architecture.fuser_layers) == (8, 1)
    values = found.weights.tensor("transformer_layes.0.attn.value.weight")
    assert torch.equal(values, tensors["transformer_layes.0.attn.in_proj_weight"][-64:])
    assert torch.equal(found.weights.tensor("task_embedding.weight"), tensors["task_embedding"])


NAMED: dict[str, dict[str, Any]] = {
    "its authors' class": {"_class_name": "ControlNetModel_Union"},
    "as a plain one with a number more": {"_class_name": "ControlNetModel"},
    "as a plain one": {
        "_class_name": "ControlNetModel",
        **dict.fromkeys(("num_control_type", "num_trans_layer", "num_trans_channel", "num_proj_channel")),
        "num_trans_head": None,
    },
}


@pytest.mark.parametrize("case", NAMED)
def test_other_configurations_of_the_same(folder: Path, tmp_path: Path, case: str) -> None:
    found, expected = open_controlnet(changed(folder, tmp_path / "other", **NAMED[case])), open_controlnet(folder)
    assert found.architecture == expected.architecture
    assert found.weights.digest() == expected.weights.digest()


def test_a_single_file_is_the_same(folder: Path) -> None:
    expected, found = open_controlnet(folder), open_controlnet(folder / WEIGHTS, config=folder)
    assert (found.architecture, found.weights.digest()) == (expected.architecture, expected.weights.digest())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "without its tasks": ({"without": "task_embedding"}, "it has no task_embedding"),
    "without a layer": ({"without": "transformer_layes"}, "lacks transformer_layes.0"),
    "without its projection": ({"without": "spatial_ch_projs"}, "lacks spatial_ch_projs"),
    "of SD 1.5": ({"addition_embed_type": None, "cross_attention_dim": 768}, "a ControlNet for Stable Diffusion 1.x"),
    "another width": ({"num_trans_channel": 32}, "num_trans_channel is 32; the width of the first level, 64, is allow"),
    "too many kinds": ({"num_control_type": 65}, "a whole number from 1 to 64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_one_is_refused(folder: Path, tmp_path: Path, case: str) -> None:
    options, words = REFUSED[case]
    with pytest.raises(IncompatibleError) as caught:
        open_controlnet(changed(folder, tmp_path / "changed", **options))
    assert words in str(caught.value)


def test_a_missing_configuration_and_numbers_that_are_none(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "bare")
    (other / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json is missing"):
        open_controlnet(other)
    tensors = load_file(folder / WEIGHTS)
    tensors["task_embedding"][0, 0] = float("nan")
    nan = changed(folder, tmp_path / "nan")
    save_file(tensors, nan / WEIGHTS)
    with pytest.raises(IntegrityError, match=r"task_embedding.*NaN"):
        open_controlnet(nan).weights.digest()
