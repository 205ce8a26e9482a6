"""IP-Adapters and image encoders that fit, and files that are none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.architecture import SizeIds, UNetArchitecture
from pocketxl.engine.errors import IncompatibleError, IntegrityError, StorageError
from pocketxl.export.checkpoint.ip_adapter import open_ip_adapter
from pocketxl.export.checkpoint.unet_configuration import unet_architecture

from ...fixtures.checkpoints import tiny_unet
from ...fixtures.ip_adapters import DEPTH, TOKENS, adapter_tensors, file_order, image_encoder, write_ip_adapter
from ...fixtures.networks import json_file


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet("base")


@pytest.fixture(scope="module")
def architecture(unet: Any) -> UNetArchitecture:
    return unet_architecture(
        json_file({**unet.config, "_class_name": "UNet2DConditionModel"}), SizeIds.SIZE_CROP_TARGET
    )


@pytest.fixture(scope="module")
def adapters(unet: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, tuple[Path, Path]]:
    roots = {plus: tmp_path_factory.mktemp("adapter") for plus in (False, True)}
    return {plus: write_ip_adapter(root, unet, plus=plus) for plus, root in roots.items()}


def test_its_numbers_are_read_from_its_tensors(
    adapters: Mapping[bool, tuple[Path, Path]], architecture: UNetArchitecture
) -> None:
    plain, plus = (open_ip_adapter(*adapters[kind], architecture).architecture for kind in (False, True))
    assert (plain.tokens, plain.plus) == (4, False)
    assert (plus.tokens, plus.resampler_depth, plus.resampler_heads) == (TOKENS, DEPTH, 2)
    assert plain.widths == plus.widths == architecture.attention_widths()


WRONG = {
    "a ControlNet": ({"controlnet_cond_embedding.conv_in.weight": (4, 4)}, "is no IP-Adapter"),
    "FaceID": ({"ip_adapter.0.to_k_lora.down.weight": (4, 4)}, "of the kind FaceID"),
    "FaceID Plus": ({"image_proj.perceiver_resampler.proj_in.weight": (4, 4)}, "FaceID Plus"),
    "something more": ({"image_proj.extra.weight": (4, 4)}, "image_proj.extra.weight, which no plain or Plus"),
    "one attention more": ({"ip_adapter.99.to_k_ip.weight": (4, 4)}, "it has ip_adapter.99.to_k_ip.weight"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_file_is_called_what_it_is(
    adapters: Mapping[bool, tuple[Path, Path]], architecture: UNetArchitecture, tmp_path: Path, case: str
) -> None:
    more, words = WRONG[case]
    file, encoder = adapters[False]
    tensors = {} if case == "a ControlNet" else load_file(file)
    save_file(tensors | {name: torch.zeros(shape) for name, shape in more.items()}, tmp_path / "x.safetensors")
    with pytest.raises(IncompatibleError) as caught:
        open_ip_adapter(tmp_path / "x.safetensors", encoder, architecture)
    assert words in str(caught.value)


def test_one_for_sd_15_one_with_another_encoder_and_one_that_lacks_something(
    adapters: Mapping[bool, tuple[Path, Path]], architecture: UNetArchitecture, unet: Any, tmp_path: Path
) -> None:
    file, encoder = adapters[False]
    save_file(adapter_tensors(file_order(unet), plus=False, text=768), tmp_path / "sd.safetensors")
    with pytest.raises(IncompatibleError, match=r"its tokens have 768 numbers, the U-Net reads \d+; take an"):
        open_ip_adapter(tmp_path / "sd.safetensors", encoder, architecture)
    image_encoder(projection_dim=24).save_pretrained(tmp_path / "other")
    with pytest.raises(IncompatibleError, match="reads 48 numbers of its image encoder, the one given has 24"):
        open_ip_adapter(file, tmp_path / "other", architecture)
    tensors = load_file(file)
    del tensors["ip_adapter.3.to_k_ip.weight"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(IntegrityError, match=r"lacks to_k_ip\.\d+\.weight"):
        open_ip_adapter(tmp_path / "less.safetensors", encoder, architecture)


def test_what_is_not_there_pickles_and_other_encoders(
    adapters: Mapping[bool, tuple[Path, Path]], architecture: UNetArchitecture, tmp_path: Path
) -> None:
    file, encoder = adapters[True]
    with pytest.raises(StorageError, match="give an IP-Adapter's"):
        open_ip_adapter(tmp_path / "no.safetensors", encoder, architecture)
    with pytest.raises(StorageError, match="give that of a CLIP image encoder"):
        open_ip_adapter(file, tmp_path / "no", architecture)
    (tmp_path / "adapter.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(IntegrityError):
        open_ip_adapter(tmp_path / "adapter.bin", encoder, architecture)
    (tmp_path / "dino").mkdir()
    (tmp_path / "dino" / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(IncompatibleError, match="is no CLIP image encoder: its model_type is dinov2"):
        open_ip_adapter(file, tmp_path / "dino", architecture)
