"""No tensor without a place and no layer without tensors, in folders as in single files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError
from pocketxl.export.checkpoint.open import open_checkpoint

from ...fixtures.checkpoints import tiny_modules
from ...fixtures.original_layout import write_single_file


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folders["base"], tmp_path / "base"))


def with_tensors(folder: Path, component: str, **names: torch.Tensor) -> Path:
    """The folder with more tensors in one component; `__` stands for a dot."""
    file = next((folder / component).glob("*.safetensors"))
    save_file(load_file(file) | {name.replace("__", "."): tensor for name, tensor in names.items()}, file)
    return folder


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("unet", "mid_block__attentions__0__transformer_blocks__2__norm1__bias"),
        ("unet", "down_blocks__0__attentions__0__proj_in__weight"),
        ("unet", "time_embedding__cond_proj__weight"),
        ("unet", "v_pred"),
        ("vae", "decoder__up_blocks__4__resnets__0__norm1__bias"),
        ("text_encoder", "text_model__encoder__layers__3__mlp__fc1__bias"),
        ("text_encoder_2", "text_model__encoder__layers__3__mlp__fc1__bias"),
        ("text_encoder_2", "visual__weight"),
    ],
)
def test_tensor_without_a_place_is_refused(folder: Path, component: str, name: str) -> None:
    with pytest.raises(IncompatibleError, match=rf"{component} has .*, for which the configuration has no place"):
        open_checkpoint(with_tensors(folder, component, **{name: ONE}))


def test_tensors_that_say_nothing_are_passed_over(folder: Path) -> None:
    before = open_checkpoint(folder).weights("text_encoder_2").digest()
    with_tensors(folder, "text_encoder_2", logit_scale=ONE, text_model__embeddings__position_ids=torch.arange(77)[None])
    with_tensors(folder, "text_encoder_2", vision_model__embeddings__class_embedding=ONE)
    with_tensors(folder, "text_encoder_2", visual_projection__weight=ONE)
    assert open_checkpoint(folder).weights("text_encoder_2").digest() == before


def test_a_projection_beside_the_first_text_encoder_has_a_place(folder: Path) -> None:
    """As folders have it whose first encoder was saved with its projection too."""
    open_checkpoint(with_tensors(folder, "text_encoder", text_projection__weight=torch.ones(96, 64)))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("text_encoder/config.json", {"num_hidden_layers": 2}),
        ("text_encoder_2/config.json", {"num_hidden_layers": 2}),
        ("text_encoder_2/config.json", {"num_hidden_layers": 4}),
        ("unet/config.json", {"transformer_layers_per_block": [1, 1]}),
        ("unet/config.json", {"transformer_layers_per_block": [1, 3]}),
        ("unet/config.json", {"layers_per_block": 2}),
        ("vae/config.json", {"block_out_channels": [8, 16, 24], "down_block_types": ["DownEncoderBlock2D"] * 3,
                             "up_block_types": ["UpDecoderBlock2D"] * 3}),
    ],
)  # fmt: skip
def test_configuration_of_other_weights_is_refused_in_both_forms(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, object]
) -> None:
    single = write_single_file(folder, tmp_path / "single.safetensors")
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    for source, config in ((folder, None), (single, folder)):
        with pytest.raises(IncompatibleError, match=r"no place|which the configuration asks for"):
            open_checkpoint(source, config=config)


@pytest.mark.parametrize("name", ["conv_in.scale_weight", "conv_in.weight_scale", "conv_in.comfy_quant", "scaled_fp8"])
def test_weights_with_scales_beside_them_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    extra = {f"model.diffusion_model.{name}": ONE}
    single = write_single_file(folder, tmp_path / "single.safetensors", extra=extra)
    with pytest.raises(IncompatibleError, match=rf"quantized with scales \(model.diffusion_model.{name}\)"):
        open_checkpoint(single, config=folder)
    with pytest.raises(IncompatibleError, match="quantized with scales"):
        open_checkpoint(with_tensors(folder, "unet", **{name.replace(".", "__"): ONE}))


def test_every_tensor_of_the_real_classes_has_a_place(tiny_folders: dict[str, Path]) -> None:
    for kind, folder in tiny_folders.items():
        checkpoint = open_checkpoint(folder)
        for component, module in tiny_modules(kind).items():
            assert len(checkpoint.weights(component)) == len(module.state_dict())
