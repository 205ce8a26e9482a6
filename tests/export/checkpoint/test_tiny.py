"""A tiny decoder's forms, which are the same one, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError, StorageError
from pocketxl.engine.tiny import TinyDecoderArchitecture
from pocketxl.export.checkpoint.tiny import LAYERS, open_tiny_decoder

from ...fixtures.networks import randomize

Tensors = dict[str, torch.Tensor]
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As diffusers writes it."""
    torch.manual_seed(1)
    module = AutoencoderTiny(num_decoder_blocks=(1, 2, 1), decoder_block_out_channels=(8, 8, 8), scaling_factor=0.5)
    path = tmp_path_factory.mktemp("taesd")
    randomize(module).save_pretrained(path)
    return path


def original(folder: Path, prefix: str = "") -> Tensors:
    """The decoder under the project's own names, where the bending of the latents is layer 0."""
    tensors = load_file(folder / FILE)
    parts = {name: name.removeprefix(LAYERS).partition(".") for name in tensors if name.startswith(LAYERS)}
    return {f"{prefix}{int(number) + 1}.{rest}": tensors[name] for name, (number, _, rest) in parts.items()}


@pytest.mark.parametrize("prefix", ["", "decoder.", "taesd_decoder."])
def test_every_form_is_the_same_decoder(folder: Path, tmp_path: Path, prefix: str) -> None:
    save_file(original(folder, prefix), tmp_path / "taesd.safetensors")
    expected = open_tiny_decoder(folder)
    assert expected.architecture == TinyDecoderArchitecture(width=8, blocks=(1, 2, 1), scaling_factor=0.5)
    for path in (tmp_path / "taesd.safetensors", folder / FILE):
        found = open_tiny_decoder(path)
        # A file has no configuration, and TAESD's is 1.
        assert found.architecture == TinyDecoderArchitecture(width=8, blocks=(1, 2, 1))
        assert found.weights.digest() == expected.weights.digest()


def changed(folder: Path, change: Callable[[Tensors], object]) -> Tensors:
    tensors = original(folder)
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("3.conv.2.bias"), r"conv.2.bias of layer 2 is no tensor, its other layers ask for \(8,\)"),
        (lambda t: t.update({"3.conv.2.bias": torch.zeros(9)}), r"conv.2.bias of layer 2 is \(9,\)"),
        (lambda t: t.update({"3.skip.weight": torch.zeros(8, 8, 1, 1)}), "skip.weight of layer 2"),
        (lambda t: t.update({"9000.weight": torch.zeros(3, 8, 3, 3)}), "no tiny decoder that is known here"),
        (lambda t: t.pop("1.weight"), "no tiny decoder that is known here"),
        (lambda t: t.update({"0.weight": torch.zeros(8, 3, 3, 3)}), "is the encoder"),
        (lambda t: (t.clear(), t.update({"lora_up.weight": torch.zeros(3)})), "holds no tiny decoder"),
    ],
    ids=["lacking", "shape", "more", "far", "first", "encoder", "other"],
)
def test_other_files_are_refused_in_words(
    folder: Path, tmp_path: Path, change: Callable[[Tensors], object], says: str
) -> None:
    save_file(changed(folder, change), tmp_path / "x.safetensors")
    with pytest.raises(IncompatibleError, match=says):
        open_tiny_decoder(tmp_path / "x.safetensors")


def test_other_folders_are_refused_in_words(folder: Path, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="is a AutoencoderKL; --tiny-decoder takes"):
        open_tiny_decoder(tiny_folders["base"])
    with pytest.raises(StorageError, match="does not exist"):
        open_tiny_decoder(tmp_path / "nothing.safetensors")
    (tmp_path / "x.ckpt").write_bytes(b"PK")
    with pytest.raises(IntegrityError, match="pickle"):
        open_tiny_decoder(tmp_path / "x.ckpt")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "act_fn": "silu"}))
    with pytest.raises(IncompatibleError, match="act_fn is silu; 'relu' is allowed"):
        open_tiny_decoder(tmp_path)
