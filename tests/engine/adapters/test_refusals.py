"""Files that are damaged, or for something else: one clear error each, before anything of an engine is touched."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.engine.adapters.keys import MAX_KEY, read_key
from pocketxl.engine.adapters.read import read_lora
from pocketxl.engine.errors import IncompatibleError, IntegrityError, PocketXLError, StorageError

from ...fixtures.adapters import base_layers, kohya, lora, miniature_models, text_layers, write

MODELS = miniature_models()
LAYERS = base_layers(MODELS)[:8]
NAME = "lora_unet_conv_in"


def good() -> dict[str, Tensor]:
    return lora(LAYERS, kohya("lora_unet"))


def wide(context: int, prefix: str = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0") -> dict[str, Tensor]:
    """A LoRA of a model whose prompts are `context` wide."""
    found = {}
    for part, inputs in (("attn1_to_q", 640), ("attn2_to_k", context), ("attn2_to_v", context)):
        found[f"{prefix}_{part}.lora_down.weight"] = torch.zeros(4, inputs)
        found[f"{prefix}_{part}.lora_up.weight"] = torch.zeros(640, 4)
    return found


def two(stem: str) -> dict[str, Tensor]:
    return {f"{stem}.lora_A.weight": torch.zeros(2, 8), f"{stem}.lora_B.weight": torch.zeros(8, 2)}


FOREIGN = {
    "for Stable Diffusion 1.5": wide(768),
    "for Stable Diffusion 2": wide(1024),
    "for SDXL's base": wide(2048),
    "for SDXL's refiner": wide(1280),
    "for Flux": two("transformer.single_transformer_blocks.0.attn.to_q"),
    "for Flux or HunyuanVideo": two("lora_unet_double_blocks_0_img_attn_proj"),
    "for Stable Diffusion 3": two("diffusion_model.joint_blocks.0.x_block.attn.proj"),
    "for Qwen-Image": two("transformer.transformer_blocks.0.img_mlp.net.2"),
    "for Wan or Cosmos": two("diffusion_model.blocks.0.cross_attn.k"),
    "is a whole checkpoint": {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2, 2, 3, 3)},
    "is a textual inversion embedding": {"clip_g": torch.zeros(2, 1280), "clip_l": torch.zeros(2, 768)},
    "is an IP-Adapter": {"image_proj.proj.weight": torch.zeros(2, 2)},
    r"none of its 1 keys \(unknown, …\)": {"unknown": torch.zeros(2)},
}


@pytest.mark.parametrize("says", FOREIGN)
def test_a_file_for_something_else_is_told_by_what_it_is(tmp_path: Path, says: str) -> None:
    with pytest.raises(IncompatibleError, match=says):
        read_lora(write(tmp_path / "a.safetensors", FOREIGN[says]), MODELS)


def test_a_text_encoder_of_the_right_size_does_not_hide_a_u_net_of_another_family(tmp_path: Path) -> None:
    """Stable Diffusion 1.5 and Flux have SDXL's first text encoder."""
    for foreign in (wide(768), two("lora_unet_double_blocks_0_img_attn_proj")):
        tensors = lora(text_layers(MODELS, "te1"), kohya("lora_te1")) | foreign
        with pytest.raises(IncompatibleError, match="is an adapter for"):
            read_lora(write(tmp_path / "a.safetensors", tensors), MODELS)


def test_a_layer_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    tensors = good() | {f"{NAME}.lora_up.weight": torch.zeros(65, 3, 1, 1)}
    with pytest.raises(IncompatibleError, match=r"conv_in is 65x36 there and 64x36 in this engine \(1 of 8"):
        read_lora(write(tmp_path / "a.safetensors", tensors), MODELS)


BROKEN: dict[str, dict[str, Tensor]] = {
    "NaN or Inf for conv_in": {f"{NAME}.lora_down.weight": torch.full((3, 4, 3, 3), float("nan"))},
    "holds NaN or Inf": {f"{NAME}.lora_up.weight": torch.full((64, 3, 1, 1), float("inf"))},
    "alpha of conv_in scales it by -1": {f"{NAME}.alpha": torch.tensor(-3.0)},
    "scales it by 0;": {f"{NAME}.alpha": torch.tensor(0.0)},
    r"scales it by 3.33333e\+08": {f"{NAME}.alpha": torch.tensor(1e9)},
    "alpha of conv_in has 2 numbers": {f"{NAME}.alpha": torch.ones(2)},
    r"down \(2, 4, 3, 3\), up \(64, 3, 1, 1\) of conv_in do not fit": {
        f"{NAME}.lora_down.weight": torch.zeros(2, 4, 3, 3)},
    "has mid beside a LoRA|do not fit": {f"{NAME}.lora_mid.weight": torch.zeros(2, 2, 3, 3)},
    "has diff beside a LoRA": {f"{NAME}.diff": torch.zeros(64, 4, 3, 3)},
    "has .* twice, in two spellings": {f"{NAME}.lora_A.weight": torch.zeros(3, 4, 3, 3)},
    "has alpha for conv_out and nothing that it is of": {"lora_unet_conv_out.alpha": torch.tensor(1.0)},
    "lacks up of conv_out": {"lora_unet_conv_out.lora_down.weight": torch.zeros(2, 64, 3, 3)},
}  # fmt: skip


@pytest.mark.parametrize("says", BROKEN)
def test_a_damaged_file_is_told_by_what_is_wrong(tmp_path: Path, says: str) -> None:
    without = {k: v for k, v in good().items() if not k.startswith("lora_unet_conv_out")}
    with pytest.raises(IntegrityError, match=says):
        read_lora(write(tmp_path / "a.safetensors", without | BROKEN[says]), MODELS)


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", good())
    whole = file.read_bytes()
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(IntegrityError):
            read_lora(file, MODELS)
    with pytest.raises(IntegrityError, match="pickle"):
        read_lora(write(tmp_path / "a.pt", good()), MODELS)
    with pytest.raises(StorageError, match="does not exist"):
        read_lora(tmp_path / "none.safetensors", MODELS)
    with pytest.raises(StorageError, match="no file"):
        read_lora(tmp_path, MODELS)
    with pytest.raises(IntegrityError, match="no tensors"):
        read_lora(write(tmp_path / "empty.safetensors", {}), MODELS)


def test_settings_that_are_no_json_are_an_error(tmp_path: Path) -> None:
    for text in ("{", "[]", "[" * 100_000):
        file = write(tmp_path / "a.safetensors", good(), {"lora_adapter_metadata": text})
        with pytest.raises(IntegrityError, match="no JSON"):
            read_lora(file, MODELS)


def test_pefts_own_settings_lie_beside_the_file(tmp_path: Path) -> None:
    names = ("lora_A.weight", "lora_B.weight")
    tensors = lora(LAYERS, lambda layer: f"base_model.model.{layer.name}", names=names, alpha=None)
    file = write(tmp_path / "adapter_model.safetensors", tensors)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "r": 3}))
    assert read_lora(file, MODELS).pairs["base/unet"]["conv_in"].scale == 2


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_none(text: str) -> None:
    for key in (text, f"lora_unet_{text}.alpha", f"{text}.lora_down.weight", f"unet.{text}.lora_A.{text}.weight"):
        read = read_key(key)
        assert read is None or (read.place in ("unet", "te1", "te2") and "." not in read.module)


def test_a_hostile_key_costs_nothing() -> None:
    assert read_key("lora_unet_" + "a." * 10_000_000) is None
    assert read_key("x" * (MAX_KEY - 6) + ".alpha") is not None


@given(data=st.binary(max_size=200), at=st.integers(0, 4000), cut=st.integers(0, 4000))
def test_a_file_with_wrong_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, cut: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "hostile.safetensors"
    whole = write(file, lora(LAYERS[:1], kohya("lora_unet"))).read_bytes()
    file.write_bytes((whole[:at] + data + whole[at + len(data) :])[: len(whole) - cut])
    with suppress(PocketXLError):
        assert read_lora(file, MODELS).pairs
