"""T2I adapters in the forms in which people have them, and what is none for SDXL."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError, StorageError
from pocketxl.engine.t2i_adapter import T2IAdapterArchitecture
from pocketxl.export.checkpoint.t2i_adapter import open_t2i_adapter

from ...fixtures.t2i_adapters import write_adapter

WEIGHTS = "diffusion_pytorch_model.safetensors"
WIDTHS = (16, 32, 48, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"), channels=list(WIDTHS))


def changed(folder: Path, to: Path, **options: Any) -> Path:
    """The same with other options in its configuration; None takes one away."""
    to.mkdir()
    config = json.loads((folder / "config.json").read_text()) | options
    (to / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    (to / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    return to


def original_name(name: str) -> str:
    """As the first files had it, whose layers are counted through: of Adapter_XL in TencentARC/T2I-Adapter."""
    plain = name.removeprefix("adapter.")
    plain = re.sub(r"body\.(\d)\.resnets\.(\d)\.", lambda m: f"body.{2 * int(m[1]) + int(m[2])}.", plain)
    return re.sub(r"body\.(\d)\.in_conv", lambda m: f"body.{2 * int(m[1])}.in_conv", plain)


def test_its_numbers_are_read_off_its_tensors(folder: Path) -> None:
    found = open_t2i_adapter(folder).architecture
    assert found == T2IAdapterArchitecture(hint_channels=3, widths=WIDTHS, layers=2)


def test_single_files_are_the_same(folder: Path, tmp_path: Path) -> None:
    expected, tensors = open_t2i_adapter(folder), load_file(folder / WEIGHTS)
    save_file({original_name(name): tensor for name, tensor in tensors.items()}, tmp_path / "first.safetensors")
    for file in (folder / WEIGHTS, tmp_path / "first.safetensors"):
        found = open_t2i_adapter(file)
        assert (found.architecture, found.weights.digest()) == (expected.architecture, expected.weights.digest())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "of SD 1.5": ({"adapter_type": "full_adapter"}, "is a T2I adapter for Stable Diffusion 1.x"),
    "a light one": ({"adapter_type": "light_adapter"}, "is a T2I adapter for Stable Diffusion 1.x"),
    "of smaller squares": ({"downscale_factor": 8}, "downscale_factor is 8; 16 is allowed"),
    "a ControlNet": ({"_class_name": "ControlNetModel"}, "its _class_name is ControlNetModel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_one_is_refused(folder: Path, tmp_path: Path, case: str) -> None:
    options, words = REFUSED[case]
    with pytest.raises(IncompatibleError) as caught:
        open_t2i_adapter(changed(folder, tmp_path / "changed", **options))
    assert words in str(caught.value)


FILES: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "of SD 1.5": (
        {"adapter.conv_in.weight": (320, 192, 3, 3), "adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
        "no T2I adapter for SDXL: its first convolution takes",
    ),
    "a light one": ({"adapter.body.0.in_conv.weight": (80, 192, 1, 1)}, "it is a light one"),
    "a ControlNet": ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, "a ControlNet, which `pocketxl bui"),
    "an IP-Adapter": ({"ip_adapter.1.to_k_ip.weight": (4, 4)}, "an IP-Adapter, which `pocketxl build-ip-adapter`"),
    "a LoRA": ({"lora_unet_x.lora_up.weight": (4, 4)}, "looks like a LoRA"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path, case: str) -> None:
    tensors, words = FILES[case]
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "file.safetensors")
    with pytest.raises(IncompatibleError) as caught:
        open_t2i_adapter(tmp_path / "file.safetensors")
    assert words in str(caught.value)


def test_a_missing_a_truncated_and_a_pickled_file_and_numbers_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        open_t2i_adapter(tmp_path / "nowhere")
    (tmp_path / "sketch.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(IntegrityError):
        open_t2i_adapter(tmp_path / "sketch.bin")
    cut = changed(folder, tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(IntegrityError):
        open_t2i_adapter(cut)
    (changed(folder, tmp_path / "bare") / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json is missing"):
        open_t2i_adapter(tmp_path / "bare")
    tensors = load_file(folder / WEIGHTS)
    tensors["adapter.conv_in.bias"][0] = float("inf")
    save_file(tensors, changed(folder, tmp_path / "inf") / WEIGHTS)
    with pytest.raises(IntegrityError, match=r"adapter\.conv_in\.bias"):
        open_t2i_adapter(tmp_path / "inf").weights.digest()


@pytest.mark.parametrize("name", ["adapter.body.3.resnets.1.block2.bias", "adapter.body.1.in_conv.weight"])
def test_a_layer_too_few_and_one_too_many_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    module = name.rpartition(".")[0]
    fewer, more = changed(folder, tmp_path / "fewer"), changed(folder, tmp_path / "more")
    tensors = load_file(folder / WEIGHTS)
    save_file({n: t for n, t in tensors.items() if not n.startswith(f"{module}.")}, fewer / WEIGHTS)
    with pytest.raises(IncompatibleError, match=re.escape(f"lacks {module}")):
        open_t2i_adapter(fewer)
    save_file(tensors | {"adapter.body.7.other.weight": torch.zeros(4)}, more / WEIGHTS)
    with pytest.raises(IncompatibleError, match=r"adapter\.body\.7\.other\.weight"):
        open_t2i_adapter(more)
