"""Single-file checkpoints in the original SDXL layout: which model a file holds, and its tensors by diffusers' names.

The original layout is that of Stability-AI/generative-models. Its names are derived here from the configuration, so
that one set of rules serves base, refiner and the whole family. Nothing is read but the header: a fused projection
becomes three ranges of rows, a 1×1 convolution another shape, a transposed matrix a mark to transpose it on reading.
"""

from collections.abc import Mapping
from pathlib import Path

from ...engine.architecture import TextEncoderArchitecture, UNetArchitecture, VaeArchitecture
from ...engine.errors import IncompatibleError
from ...engine.original_names import Places, unet_places
from ...engine.stored.header import StoredTensor
from .families import FAMILIES
from .settings import Settings
from .weights import Weights

Tensors = Mapping[str, StoredTensor]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
VAE_ATTENTION: Mapping[str, str] = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
RESBLOCK: Mapping[str, str] = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def map_components(tensors: Tensors, settings: Settings, source: Path, *, vae: bool = True) -> dict[str, Weights]:
    """The tensors of every component by diffusers' and transformers' names; of the VAE only if `vae`.

    `IncompatibleError` when the file is of another size or build than the settings say.
    """
    components: dict[str, Mapping[str, StoredTensor]] = {
        "unet": map_unet(below(tensors, UNET), settings.unet_architecture, source)
    }
    if vae:
        components["vae"] = map_vae(below(tensors, VAE), settings.vae_architecture, source)
    for name, row in FAMILIES[settings.kind].text_encoders.items():
        own, text = below(tensors, row.original), settings.text_encoder_architecture(name)
        components[name] = map_open_clip(own, text, source) if row.open_clip else map_clip(own)
    return {component: Weights(named) for component, named in components.items()}


def map_unet(tensors: Tensors, architecture: UNetArchitecture, source: Path) -> dict[str, StoredTensor]:
    """U-Net tensors (without `model.diffusion_model.`); tensors without a place and empty places are errors."""
    places = unet_places(architecture)
    named: dict[str, StoredTensor] = {}
    for name, stored in tensors.items():
        place = place_of(name, places)
        if place is None:
            raise mismatch(source, f"it has {UNET}{name}, for which the configuration has no place")
        named[place] = as_linear(place, stored)
    paths = [name.split(".") for name in named]
    modules = {".".join(path[:cut]) for path in paths for cut in range(1, len(path))}
    for original, module in places.items():
        if not original.endswith("skip_connection") and module not in modules:
            raise mismatch(source, f"it lacks {UNET}{original}, which the configuration asks for")
    return named


def as_linear(name: str, stored: StoredTensor) -> StoredTensor:
    """A U-Net's tensor; what stands around transformer blocks is 1×1 convolutions in Stable Diffusion 1."""
    around = name.rpartition(".")[0].endswith((".proj_in", ".proj_out")) and ".attentions." in name
    return stored.without_kernel() if around else stored


def map_vae(tensors: Tensors, architecture: VaeArchitecture, source: Path) -> dict[str, StoredTensor]:
    """VAE tensors (without `first_stage_model.`); attention is stored as 1×1 convolutions there.

    What stands beside encoder and decoder is of their training, and passed over.
    """
    places = vae_places(architecture)
    named: dict[str, StoredTensor] = {}
    for name, stored in tensors.items():
        place = place_of(name, places)
        if place is not None:
            named[place] = stored
        elif name.startswith(("encoder.", "decoder.")):
            raise mismatch(source, f"its VAE has {name}, for which the configuration has no place")
    for name, stored in named.items():
        if ".attentions." in name:
            named[name] = stored.without_kernel()
    return named


def vae_places(architecture: VaeArchitecture) -> Places:
    """Every module of the original VAE; the decoder's levels are counted from the other end there."""
    levels, layers = len(architecture.block_out_channels), architecture.layers_per_block
    places = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}

    def resnet(original: str, module: str) -> None:
        places.update({f"{original}.{part}": f"{module}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")})
        places[f"{original}.nin_shortcut"] = f"{module}.conv_shortcut"

    for side in ("encoder", "decoder"):
        places.update({f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"})
        places[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        resnet(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0")
        resnet(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1")
        for old, new in VAE_ATTENTION.items():
            places[f"{side}.mid.attn_1.{old}"] = f"{side}.mid_block.attentions.0.{new}"
    for level in range(levels):
        for layer in range(layers):
            resnet(f"encoder.down.{level}.block.{layer}", f"encoder.down_blocks.{level}.resnets.{layer}")
        for layer in range(layers + 1):
            resnet(f"decoder.up.{levels - 1 - level}.block.{layer}", f"decoder.up_blocks.{level}.resnets.{layer}")
        places[f"encoder.down.{level}.downsample.conv"] = f"encoder.down_blocks.{level}.downsamplers.0.conv"
        places[f"decoder.up.{levels - 1 - level}.upsample.conv"] = f"decoder.up_blocks.{level}.upsamplers.0.conv"
    return places


def map_clip(tensors: Tensors) -> dict[str, StoredTensor]:
    """CLIP-L tensors (without `conditioner.embedders.0.transformer.`) have transformers' names already.

    Some trainers leave their common beginning away.
    """
    named = {
        name if name.startswith("text_model.") else f"text_model.{name}": stored
        for name, stored in tensors.items()
        if name.startswith(("text_model.", "embeddings.", "encoder.", "final_layer_norm."))
    }
    return {name: stored for name, stored in named.items() if not name.endswith("position_ids")}


def map_open_clip(tensors: Tensors, architecture: TextEncoderArchitecture, source: Path) -> dict[str, StoredTensor]:
    """OpenCLIP tensors (without `conditioner.embedders.N.model.`): one tensor there holds query, key and value."""
    places = open_clip_places(architecture)
    width = architecture.hidden_size
    # Of the whole tower a model may read the last layer but one: what is behind it is then passed over.
    unread = f"transformer.resblocks.{architecture.num_hidden_layers}." if not architecture.pooled else None
    named: dict[str, StoredTensor] = {}
    for name, stored in tensors.items():
        if name == "positional_embedding":
            named["text_model.embeddings.position_embedding.weight"] = stored
        elif unread is not None and name.startswith((unread, "text_projection")):
            continue
        elif name == "text_projection" and len(stored.shape) == 2:
            named["text_projection.weight"] = stored.transpose()
        elif ".attn.in_proj_" in name:
            layer, part = name.removeprefix("transformer.resblocks.").split(".attn.in_proj_", 1)
            if stored.shape[:1] != (3 * width,):
                raise mismatch(source, f"{name} has shape {stored.shape} where the text encoder is {width} wide")
            for index, projection in enumerate("qkv"):
                rows = stored.rows(index * width, (index + 1) * width)
                named[f"text_model.encoder.layers.{layer}.self_attn.{projection}_proj.{part}"] = rows
        elif place := place_of(name, places):
            named[place] = stored
        elif name.startswith("transformer.resblocks."):
            raise mismatch(source, f"its text encoder has {name}, for which the configuration has no place")
    return named


def open_clip_places(architecture: TextEncoderArchitecture) -> Places:
    """Every module of OpenCLIP's text tower that is not a bare parameter."""
    places = {"token_embedding": "text_model.embeddings.token_embedding", "ln_final": "text_model.final_layer_norm"}
    for layer in range(architecture.num_hidden_layers):
        for old, new in RESBLOCK.items():
            places[f"transformer.resblocks.{layer}.{old}"] = f"text_model.encoder.layers.{layer}.{new}"
    return places


def place_of(name: str, places: Places) -> str | None:
    """The new name of a tensor: the longest module path in `places` is replaced."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        if module in places:
            return places[module] + name[len(module) :]
    return None


def below(tensors: Tensors, prefix: str) -> dict[str, StoredTensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): stored for name, stored in tensors.items() if name.startswith(prefix)}


def mismatch(source: Path, what: str) -> IncompatibleError:
    """The error for weights of another size or build than their configuration says."""
    return IncompatibleError(
        f"{source} does not fit its configuration: {what}. If it is another member of its family, give the "
        "diffusers folder with its configurations (--config FOLDER)."
    )
