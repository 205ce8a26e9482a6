"""Which layer of the engine a module's name stands for, in kohya's, PEFT's, diffusers' and the original spelling."""

from collections.abc import Mapping

from ..architecture import Models
from ..original_names import unet_places
from .keys import TE1, TE2
from .layers import Layer, text_encoder_layers, text_encoders, unet_layers

Names = Mapping[str, Layer]
"""A module's name with `_` for every dot → the layer."""

_OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""diffusers' names of a text encoder's projections before PEFT."""


def unet_names(models: Models) -> dict[str, Names]:
    """By kind of denoiser (`base`, `refiner`): the layers of its U-Net, by diffusers' names and by original ones."""
    found: dict[str, Names] = {}
    for kind, model in models.denoisers.items():
        layers = {layer.name: layer for layer in unet_layers(model.unet, kind)}
        names = {_flat(name): layer for name, layer in layers.items()}
        names |= {_flat(name[:-2]): layer for name, layer in layers.items() if name.endswith(".to_out.0")}
        originals = {module: original for original, module in unet_places(model.unet).items()}
        for name, layer in layers.items():
            parts = name.split(".")
            for cut in range(len(parts), 0, -1):
                original = originals.get(".".join(parts[:cut]))
                if original is not None:
                    names[_flat(".".join((original, *parts[cut:])))] = layer
                    break
        found[kind] = names
    return found


def text_encoder_names(models: Models) -> dict[str, Names]:
    """By place (`te1`, `te2`): the layers of the text encoder there, without the leading `text_model`."""
    found: dict[str, Names] = {TE1: {}, TE2: {}}
    for place, component in text_encoders(models).items():
        names: dict[str, Layer] = {}
        for layer in text_encoder_layers(models.text_encoders[component], component):
            name = layer.name.removeprefix("text_model.")
            names[_flat(name)] = layer
            for old, new in _OLD_ATTENTION.items():
                if name.endswith(new):
                    names[_flat(name.removesuffix(new) + old)] = layer
        found[place] = names
    return found


def _flat(name: str) -> str:
    return name.replace(".", "_")
