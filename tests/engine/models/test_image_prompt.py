"""Our image encoder is transformers', our projections are diffusers', and keys and values stand where it has them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pocketxl.engine.models.image_prompt import ImageProjection
from pocketxl.engine.models.vision import ImageEncoder
from pocketxl.export.checkpoint.ip_adapter import IPAdapterCheckpoint, open_ip_adapter

from ...fixtures.checkpoints import tiny_unet
from ...fixtures.compare import relative_error
from ...fixtures.ip_adapters import image_encoder, write_ip_adapter
from ...fixtures.networks import UNETS, json_file
from ...tolerances import MODEL_RELATIVE


@pytest.fixture(params=[False, True], ids=["plain", "plus"], scope="module")
def plus(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet("base").eval().requires_grad_(False)


@pytest.fixture(scope="module")
def opened(plus: bool, unet: Any, tmp_path_factory: pytest.TempPathFactory) -> IPAdapterCheckpoint:
    from pocketxl.engine.architecture import SizeIds
    from pocketxl.export.checkpoint.unet_configuration import unet_architecture

    folder: Path = tmp_path_factory.mktemp("adapter")
    file, encoder = write_ip_adapter(folder, unet, plus=plus)
    class_name = {"_class_name": UNETS["base"]["_class_name"]}
    architecture = unet_architecture(json_file({**unet.config, **class_name}), SizeIds.SIZE_CROP_TARGET)
    return open_ip_adapter(file, encoder, architecture)


def load(module: Any, weights: Any) -> Any:
    module.load_state_dict({name: weights.tensor(name) for name in module.state_dict()})
    return module.eval().requires_grad_(False)


def test_the_features_are_those_of_transformers(opened: IPAdapterCheckpoint, plus: bool) -> None:
    theirs, ours = image_encoder(), load(ImageEncoder(opened.architecture), opened.encoder)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    given = theirs(pixels, output_hidden_states=True)
    expected = given.hidden_states[-2] if plus else given.image_embeds
    assert relative_error(ours(pixels), expected) < MODEL_RELATIVE


@torch.no_grad()
def test_keys_and_values_are_those_of_diffusers(opened: IPAdapterCheckpoint, unet: Any, plus: bool) -> None:
    from safetensors.torch import load_file

    tensors = load_file(opened.source)
    state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        state[group][rest] = tensor
    unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    ours = load(ImageProjection(opened.architecture), opened.weights)
    shape: Any = opened.architecture.features().shape[1:]
    features = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    tokens = unet.encoder_hid_proj.image_projection_layers[0](features)
    found = ours(features)
    assert len(found) == 2 * len(opened.architecture.widths)
    blocks = [name for name in unet.attn_processors if "attn2" in name]
    running = sorted(blocks, key=lambda name: ["down", "mid", "up"].index(name.split("_")[0]))
    for index, name in enumerate(running):
        processor = unet.attn_processors[name]
        assert relative_error(found[2 * index], processor.to_k_ip[0](tokens)) < MODEL_RELATIVE
        assert relative_error(found[2 * index + 1], processor.to_v_ip[0](tokens)) < MODEL_RELATIVE
