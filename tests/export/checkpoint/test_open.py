"""One model is one `Checkpoint`, whatever form it is in; what is not an SDXL checkpoint is refused with the reason."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError, StorageError
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.checkpoint.settings import Settings

from ...fixtures.checkpoints import tiny_checkpoint, tiny_modules
from ...fixtures.original_layout import write_shards

KINDS = ("base", "refiner")


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A base of its own, to be damaged."""
    return Path(shutil.copytree(tiny_folders["base"], tmp_path / "base"))


@pytest.mark.parametrize("kind", KINDS)
def test_folder_and_single_file_are_one_checkpoint(
    kind: str, tiny_folders: dict[str, Path], tiny_files: dict[str, Path]
) -> None:
    folder = open_checkpoint(tiny_folders[kind])
    file = open_checkpoint(tiny_files[kind], config=tiny_folders[kind])
    fields = Settings.__dataclass_fields__
    assert {f: getattr(folder, f) for f in fields} == {f: getattr(file, f) for f in fields}
    assert folder.kind == kind
    assert set(folder.components) == set(file.components)
    for component in folder.components:
        assert folder.weights(component).names() == file.weights(component).names()
        assert folder.weights(component).digest() == file.weights(component).digest()
        for name in folder.weights(component):
            assert torch.equal(folder.weights(component).tensor(name), file.weights(component).tensor(name))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_have_the_values_and_names_of_the_modules(kind: str, tiny_folders: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(tiny_folders[kind])
    for component, module in tiny_modules(kind).items():
        state = module.state_dict()
        if component == "text_encoder":  # transformers 5 leaves the prefix away, published files have it
            state = {f"text_model.{name}": tensor for name, tensor in state.items()}
        weights = checkpoint.weights(component)
        assert weights.names() == sorted(state)
        assert all(torch.equal(weights.tensor(name), tensor) for name, tensor in state.items())


def test_base_and_refiner_share_what_the_public_ones_share(tiny_folders: dict[str, Path]) -> None:
    base, refiner = (open_checkpoint(tiny_folders[kind]) for kind in KINDS)
    assert base.weights("vae").digest() == refiner.weights("vae").digest()
    assert base.weights("text_encoder_2").digest() == refiner.weights("text_encoder_2").digest()
    assert base.weights("unet").digest() != refiner.weights("unet").digest()
    with pytest.raises(IncompatibleError, match="no text_encoder; a refiner has unet, text_encoder_2, vae"):
        refiner.weights("text_encoder")


def test_sharded_and_16_bit_folders(folder: Path, tmp_path: Path) -> None:
    before = open_checkpoint(folder).weights("unet").digest()
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    names = sorted(tensors)
    write_shards(file.parent, file.stem, ({n: tensors[n] for n in part} for part in (names[::2], names[1::2])))
    assert open_checkpoint(folder).weights("unet").digest() == before
    half = open_checkpoint(tiny_checkpoint(tmp_path / "half", "base", torch.float16, variant="fp16"))
    assert {half.weights("unet").dtype(name) for name in half.weights("unet")} == {"float16"}
    name = "mid_block.resnets.0.conv1.weight"
    assert torch.equal(half.weights("unet").tensor(name), tensors[name].half())


def test_names_of_older_libraries_are_brought_up_to_date(folder: Path) -> None:
    before = {component: open_checkpoint(folder).weights(component).digest() for component in ("text_encoder", "vae")}
    file = folder / "text_encoder/model.safetensors"
    state = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file)
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for name in [name for name in state if ".attentions." in name]:
        tensor = state.pop(name)
        for new_part, old_part in old.items():
            name = name.replace(f".{new_part}.", f".{old_part}.")
        state[name] = tensor[:, :, None, None].contiguous() if tensor.ndim == 2 else tensor
    assert any(".query." in name for name in state)
    save_file(state, file)
    assert {component: open_checkpoint(folder).weights(component).digest() for component in before} == before


def test_single_file_of_another_size_asks_for_its_configuration(tiny_files: dict[str, Path]) -> None:
    with pytest.raises(IncompatibleError, match="--config FOLDER"):
        open_checkpoint(tiny_files["base"])


def test_configuration_of_the_other_kind_is_refused(tiny_files: dict[str, Path], tiny_folders: dict[str, Path]) -> None:
    with pytest.raises(IncompatibleError, match=r"is a base, but .* configures a refiner"):
        open_checkpoint(tiny_files["base"], config=tiny_folders["refiner"])


def test_configuration_that_is_not_there_is_told_with_what_to_do(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothere does not exist; --config takes a diffusers folder.*leave it out"):
        open_checkpoint(tiny_files["base"], config=tmp_path / "nothere")
    with pytest.raises(StorageError, match=r"has no model_index\.json; --config takes"):
        open_checkpoint(tiny_files["base"], config=tmp_path)


def test_sft_is_another_name_of_the_same_files(
    tiny_files: dict[str, Path], tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "model.sft"
    file.symlink_to(tiny_files["refiner"])
    assert open_checkpoint(file, config=tiny_folders["refiner"]).kind == "refiner"


def test_configuration_beside_a_folder_is_refused(tiny_folders: dict[str, Path]) -> None:
    with pytest.raises(IncompatibleError, match="omit --config"):
        open_checkpoint(tiny_folders["base"], config=tiny_folders["base"])


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("unet", "conv_in.weight"),
        ("unet", "add_embedding.linear_1.weight"),
        ("vae", "decoder.conv_in.weight"),
        ("text_encoder_2", "text_model.embeddings.token_embedding.weight"),
    ],
)
def test_weights_of_another_shape_or_type_are_refused(folder: Path, component: str, name: str) -> None:
    file = next((folder / component).glob("*.safetensors"))
    state = load_file(file)
    save_file(state | {name: state[name][:-1].contiguous()}, file)
    with pytest.raises(IncompatibleError, match=f"{name} of {component} has shape"):
        open_checkpoint(folder)
    save_file(state | {name: state[name].to(torch.int8)}, file)
    with pytest.raises(IncompatibleError, match=r"int8.*before it was quantized"):
        open_checkpoint(folder)
    save_file({n: tensor for n, tensor in state.items() if n != name}, file)
    with pytest.raises(IntegrityError, match=f"lacks the tensor {name}"):
        open_checkpoint(folder)


@pytest.mark.parametrize("component", ["unet", "text_encoder", "text_encoder_2", "vae"])
def test_missing_cut_and_pickled_weights_are_named(folder: Path, component: str) -> None:
    file = next((folder / component).glob("*.safetensors"))
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match=f"{file} is not a whole safetensors file"):
        open_checkpoint(folder)
    file.unlink()
    with pytest.raises(IntegrityError, match=f"{file} is missing"):
        open_checkpoint(folder)
    file.with_suffix(".bin").write_bytes(b"x")
    with pytest.raises(IntegrityError, match="pickle"):
        open_checkpoint(folder)


def test_flipped_byte_of_the_values_changes_the_digest(folder: Path) -> None:
    before = open_checkpoint(folder).weights("vae").digest()
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert open_checkpoint(folder).weights("vae").digest() != before


def test_the_u_net_of_another_family_is_refused(folder: Path) -> None:
    (folder / "unet/config.json").write_text('{"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}')
    with pytest.raises(IncompatibleError, match=r"the U-Net of another model family.*SDXL base and refiner"):
        open_checkpoint(folder)


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist; give a diffusers folder"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(StorageError, match="does not exist"):
        open_checkpoint("folder/model.safetensors")
    with pytest.raises(IntegrityError, match="pickle"):
        open_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(IntegrityError, match=r"model_index\.json is missing"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(IncompatibleError, match=r"no \.safetensors file"):
        open_checkpoint(tmp_path / "model.gguf")
