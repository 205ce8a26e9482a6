"""A diffusers folder of a base as one file in SDXL's original layout, which is what stable-diffusion.cpp reads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pocketxl.engine.original_names import unet_places
from pocketxl.export.checkpoint.original_layout import UNET, VAE, open_clip_places, vae_places
from pocketxl.export.checkpoint.settings import read_settings

from ..weight_files import described, write_weights

CLIP: Final = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP: Final = "conditioner.embedders.1.model."
Shapes = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One of the file: joined from tensors of a part's file along the first dimension, or one of them transposed."""

    file: Path
    names: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    transposed: bool = False

    def read(self) -> np.ndarray:
        """Its numbers."""
        from safetensors import safe_open

        with safe_open(str(self.file), "np") as file:
            found = [file.get_tensor(name) for name in self.names]
        return np.concatenate([one.T if self.transposed else one for one in found]).reshape(self.shape)


def write_single_file(folder: Path, out: Path) -> None:
    """Write `out`, a tensor at a time."""
    tensors = dict(_tensors(folder))
    aside = out.with_name(f"{out.name}.part")
    layout = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    write_weights(aside, layout, lambda name: tensors[name].read())
    aside.replace(out)


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    settings = read_settings(folder)
    files = {part: next((folder / part).glob("*.safetensors")) for part in settings.text_encoder_architectures}
    files |= {part: next((folder / part).glob("*.safetensors")) for part in ("unet", "vae")}
    found = {part: described(file) for part, file in files.items()}
    yield from _renamed(files["unet"], found["unet"], unet_places(settings.unet_architecture), UNET)
    # The attention's linear layers are 1x1 convolutions there.
    flat = {
        name: (dtype, (*shape, 1, 1) if ".attentions." in name and len(shape) == 2 else shape)
        for name, (dtype, shape) in found["vae"].items()
    }
    yield from _renamed(files["vae"], flat, vae_places(settings.vae_architecture), VAE)
    for name, (dtype, shape) in found["text_encoder"].items():
        bare = name.removeprefix("text_model.")
        yield CLIP + bare, Tensor(file=files["text_encoder"], names=(name,), dtype=dtype, shape=shape)
    architecture = settings.text_encoder_architecture("text_encoder_2")
    places = open_clip_places(architecture)
    yield from _open_clip(files["text_encoder_2"], found["text_encoder_2"], places, architecture.num_hidden_layers)


def _open_clip(file: Path, found: Shapes, places: Mapping[str, str], layers: int) -> Iterator[tuple[str, Tensor]]:
    """Queries, keys and values are one tensor there, and the projection is transposed."""
    rest = dict(found)
    position = "text_model.embeddings.position_embedding.weight"
    for name, own, transposed in (
        ("positional_embedding", position, False),
        ("text_projection", "text_projection.weight", True),
    ):
        dtype, shape = rest.pop(own)
        shape = shape[::-1] if transposed else shape
        yield OPEN_CLIP + name, Tensor(file=file, names=(own,), dtype=dtype, shape=shape, transposed=transposed)
    for layer in range(layers):
        for part in ("weight", "bias"):
            names = tuple(f"text_model.encoder.layers.{layer}.self_attn.{one}_proj.{part}" for one in "qkv")
            dtype, shape = rest[names[0]]
            rest = {name: there for name, there in rest.items() if name not in names}
            joined = Tensor(file=file, names=names, dtype=dtype, shape=(3 * shape[0], *shape[1:]))
            yield f"{OPEN_CLIP}transformer.resblocks.{layer}.attn.in_proj_{part}", joined
    yield from _renamed(file, rest, places, OPEN_CLIP)


def _renamed(file: Path, found: Shapes, places: Mapping[str, str], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under the module path that `places` maps to its own."""
    back = {module: original for original, module in places.items()}
    for name, (dtype, shape) in found.items():
        module = name.rpartition(".")[0]
        while module not in back:
            module = module.rpartition(".")[0]
        new = prefix + back[module] + name.removeprefix(module)
        yield new, Tensor(file=file, names=(name,), dtype=dtype, shape=shape)
