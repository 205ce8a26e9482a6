"""The layers told from the architecture are those of the torch modules, each in the component that holds it."""

import torch
from torch import nn

from pocketxl.engine.adapters.layers import text_encoder_layers, unet_layers
from pocketxl.engine.models.clip import ClipTextEncoder

from ...fixtures.adapters import miniature_models
from ...fixtures.networks import UNETS, unet_pair


def of(module: nn.Module, component: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → component and shape of the weight of every linear layer and convolution."""
    return {
        name: (component, tuple(layer.weight.shape))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }


def test_the_layers_of_every_small_u_net_are_those_of_the_modules() -> None:
    for kind in UNETS:
        pair = unet_pair(kind)
        told = {
            layer.name: (layer.component, (layer.out_channels, layer.in_channels, *layer.kernel))
            for layer in unet_layers(pair.architecture, "base")
        }
        assert told == of(pair.unet, "base/unet") | of(pair.conditioner, "base/conditioner"), kind


def test_the_layers_of_text_encoders_are_those_of_the_modules_and_what_is_never_read_has_no_component() -> None:
    for name, architecture in miniature_models().text_encoders.items():
        with torch.device("meta"):
            module = ClipTextEncoder(architecture)
        layers = list(text_encoder_layers(architecture, name))
        told = {layer.name: (name, (layer.out_channels, layer.in_channels)) for layer in layers if layer.component}
        assert told == of(module, name)
        left_out = {layer.name.split(".")[3] for layer in layers if not layer.component}
        assert left_out == (set() if architecture.pooled else {str(architecture.num_hidden_layers - 1)})
