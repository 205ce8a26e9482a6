"""A tiny decoder's weights: `--tiny-decoder`, a diffusers `AutoencoderTiny` folder or a single file of TAESD.

The original file has no configuration: how wide the decoder is and how many blocks it has follow from its tensors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engine.bounds import outside
from ...engine.errors import IncompatibleError, StorageError
from ...engine.stored.header import SUFFIXES, StoredTensor, read_header, refuse_pickle
from ...engine.tiny import BOUNDS, TinyDecoderArchitecture
from .configuration import JsonFile, Option, read_json, shown
from .original_layout import below
from .weights import Weights, open_weights

STEM = "diffusion_pytorch_model"
LAYERS = "decoder.layers."
PREFIXES = (LAYERS, "taesd_decoder.", "decoder.", "")
"""What stands before a layer's number: in diffusers' files, in ComfyUI's, and in those of the project itself."""
_LAYER = re.compile(r"(\d{1,4})\.(.+)")
MOST_LAYERS = 512
FIXED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("AutoencoderTiny",),
    "act_fn": ("relu",),
    "shift_factor": (0, 0.0, None),
    "upsample_fn": ("nearest",),
    "upsampling_scaling_factor": (2,),
}
OPTIONS: Mapping[str, Option] = {"scaling_factor": Option(default=1.0, least=1e-6, most=1e6)}
UNREAD = (
    *("block_out_channels", "decoder_block_out_channels", "encoder_block_out_channels", "force_upcast", "in_channels"),
    *("latent_channels", "latent_magnitude", "latent_shift", "num_decoder_blocks", "num_encoder_blocks"),
    "out_channels",
)
"""At any value: of the encoder, of another way to store latents, and what the tensors say themselves."""
ALLOWED = "--tiny-decoder takes an AutoencoderTiny folder of diffusers, or TAESD's decoder as a .safetensors file"
Layers = Mapping[tuple[int, str], StoredTensor]
"""(diffusers' number of a layer, what follows it) → where it lies."""


@dataclass(frozen=True, kw_only=True)
class TinyDecoderSource:
    """A tiny decoder on disk."""

    path: Path
    architecture: TinyDecoderArchitecture
    weights: Weights


def open_tiny_decoder(path: Path) -> TinyDecoderSource:
    """Open a folder or a file. `StorageError` where there is none, `IncompatibleError` for what is no tiny decoder."""
    refuse_pickle(path)
    scale = 1.0
    if path.is_dir():
        whole = not (path / "config.json").is_file() and (path / "vae").is_dir()
        scale, tensors = _open_folder(path / "vae" if whole else path)
    elif not path.is_file():
        raise StorageError(f"{path} does not exist; {ALLOWED}")
    elif path.suffix.lower() not in SUFFIXES:
        raise IncompatibleError(f"{path} is no .safetensors file; {ALLOWED}")
    else:
        tensors = read_header(path).tensors
    layers = _layers(tensors, path)
    architecture = _architecture(layers, path, scale)
    named = {f"{LAYERS}{number}.{part}": stored for (number, part), stored in layers.items()}
    return TinyDecoderSource(path=path, architecture=architecture, weights=Weights(named))


def _open_folder(folder: Path) -> tuple[float, Mapping[str, StoredTensor]]:
    """What latents are divided by, and the tensors."""
    config = JsonFile(data=read_json(folder / "config.json"), path=folder / "config.json")
    kind = config.data.get("_class_name")
    if kind != "AutoencoderTiny":
        raise IncompatibleError(f"{config.path} is a {shown(kind)}; {ALLOWED}")
    config.hold(FIXED, lambda key: key in OPTIONS or key in UNREAD)
    weights = open_weights(folder, STEM)
    return float(config.number(OPTIONS, "scaling_factor")), {name: weights.stored(name) for name in weights}


def _layers(tensors: Mapping[str, StoredTensor], path: Path) -> Layers:
    """The decoder's layers; in the original files number 0 is what bends the latents, so that all are one further."""
    for prefix in PREFIXES:
        matches = ((_LAYER.fullmatch(name), stored) for name, stored in below(tensors, prefix).items())
        found = {(int(match[1]) - (prefix != LAYERS), match[2]): stored for match, stored in matches if match}
        if found:
            break
    else:
        raise IncompatibleError(f"{path} holds no tiny decoder; {ALLOWED}")
    if min(found)[0] < 0:
        raise IncompatibleError(f"{path} is the encoder of a tiny autoencoder; take its decoder. {ALLOWED}")
    return found


def _architecture(layers: Layers, path: Path, scale: float) -> TinyDecoderArchitecture:
    """The numbers that the tensors tell; `IncompatibleError` for layers in another order or of other shapes."""
    first, last = layers.get((0, "weight")), max(number for number, _ in layers)
    if first is None or len(first.shape) != 4 or last > MOST_LAYERS or (last, "weight") not in layers:
        raise IncompatibleError(f"{path} holds no tiny decoder that is known here; {ALLOWED}")
    blocks, number = [0], 2  # behind the first convolution and its non-linearity
    while number < last:
        is_block = (number, "conv.0.weight") in layers
        blocks[-1] += is_block
        blocks += [] if is_block else [0]
        number += 1 if is_block else 2  # a doubling, and the convolution behind it
    found = TinyDecoderArchitecture(
        width=first.shape[0],
        blocks=tuple(blocks),
        latent_channels=first.shape[1],
        out_channels=layers[last, "weight"].shape[0],
        scaling_factor=scale,
    )
    shapes = {place: stored.shape for place, stored in layers.items()}
    wanted = _shapes(found)
    for place in sorted({*shapes, *wanted}):
        if shapes.get(place) != wanted.get(place):
            has, asks = (str(one.get(place, "no tensor")) for one in (shapes, wanted))
            raise IncompatibleError(
                f"{path} is no tiny decoder that is known here: {place[1]} of layer {place[0]} is {has}, its other "
                f"layers ask for {asks}; {ALLOWED}"
            )
    if fault := next(outside(found, BOUNDS), None):
        raise IncompatibleError(f"{path}: {fault}. {ALLOWED}")
    return found


def _shapes(a: TinyDecoderArchitecture) -> dict[tuple[int, str], tuple[int, ...]]:
    """Every tensor of such a decoder, and its shape."""
    square = (a.width, a.width, 3, 3)
    shapes: dict[tuple[int, str], tuple[int, ...]] = {
        (0, "weight"): (a.width, a.latent_channels, 3, 3),
        (0, "bias"): (a.width,),
    }
    number = 2
    for level, blocks in enumerate(a.blocks):
        for _ in range(blocks):
            shapes |= {(number, f"conv.{i}.weight"): square for i in (0, 2, 4)}
            shapes |= {(number, f"conv.{i}.bias"): (a.width,) for i in (0, 2, 4)}
            number += 1
        if level < len(a.blocks) - 1:
            shapes[number + 1, "weight"] = square
            number += 2
    return shapes | {(number, "weight"): (a.out_channels, a.width, 3, 3), (number, "bias"): (a.out_channels,)}
