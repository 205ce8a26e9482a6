"""Opens an IP-Adapter for SDXL (`.safetensors`, with or without a resampler) and the image encoder that it reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.architecture import UNetArchitecture
from ...engine.errors import IncompatibleError, IntegrityError, StorageError
from ...engine.image_prompt import IPAdapterArchitecture, VisionArchitecture
from ...engine.stored.header import SUFFIXES, StoredTensor, read_header, refuse_pickle
from .configuration import JsonFile, read_json
from .vision_configuration import vision_architecture
from .weights import Weights, open_weights

PROJECTION, KEYS = "image_proj.", "ip_adapter."
HEAD = 64
"""Channels of a head of the resampler."""
TOKENS = 4
"""Of an adapter without a resampler: its file does not tell, and it is never another number."""
_PLAIN = {"proj": "image_embeds", "norm": "norm"}
_BLOCK: Mapping[str, str] = {
    "0.norm1": "ln0",
    "0.norm2": "ln1",
    "0.to_q": "attn.to_q",
    "0.to_out": "attn.to_out.0",
    "1.0": "ff.0",
    "1.1": "ff.1.net.0.proj",
    "1.3": "ff.1.net.2",
}
_ENDS = ("proj_in", "proj_out", "norm_out")
_STAGES = ("down_blocks", "up_blocks", "mid_block")
"""In the order in which the file counts attentions: diffusers' of a U-Net's modules, not of running."""
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")
_KEY = re.compile(r"(\d+)\.to_([kv])_ip\.weight")


@dataclass(frozen=True, kw_only=True)
class IPAdapterCheckpoint:
    """One on disk."""

    source: Path
    architecture: IPAdapterArchitecture
    weights: Weights
    """Of projection, keys and values, under our names."""
    encoder: Weights
    """Of the image encoder, under transformers' names."""


def open_ip_adapter(source: str | Path, image_encoder: str | Path, unet: UNetArchitecture) -> IPAdapterCheckpoint:
    """Opens an adapter's file and the folder of its image encoder; `unet`: of the base that it is for.

    `IncompatibleError` for another kind of file and one that does not fit, `IntegrityError` for missing or damaged
    files and for pickles, `StorageError` when one of the two does not exist.
    """
    path, folder = Path(source), Path(image_encoder)
    refuse_pickle(path)
    if not path.is_file():
        raise StorageError(f"{source} does not exist or is no file; give an IP-Adapter's .safetensors file")
    if path.suffix.lower() not in SUFFIXES:
        raise IncompatibleError(f"{path} is no .safetensors file; take the IP-Adapter in that form")
    if not folder.is_dir():
        raise StorageError(f"{image_encoder} does not exist or is no folder; give that of a CLIP image encoder")
    config = folder / "config.json"
    vision = vision_architecture(JsonFile(data=read_json(config), path=config))
    tensors = read_header(path).tensors
    _refuse_others(tensors, path)
    projection = {n.removeprefix(PROJECTION): t for n, t in tensors.items() if n.startswith(PROJECTION)}
    named = _resampler(projection, path) if "latents" in projection else _plain(projection, path)
    named |= _keys_and_values(tensors, unet, path)
    architecture = _architecture(named, vision, unet, path)
    encoder = open_weights(folder, "model")
    return IPAdapterCheckpoint(source=path, architecture=architecture, weights=Weights(named), encoder=encoder)


def _refuse_others(tensors: Mapping[str, StoredTensor], path: Path) -> None:
    names = list(tensors)
    if not any(n.startswith(PROJECTION) for n in names) or not any(n.startswith(KEYS) for n in names):
        raise IncompatibleError(f"{path} is no IP-Adapter: it has no {PROJECTION}… and {KEYS}… tensors")
    kinds = {"perceiver_resampler": "FaceID Plus", "_lora.": "FaceID", f"{PROJECTION}proj.0.": "FaceID or Full Face"}
    for part, kind in kinds.items():
        if any(part in name for name in names):
            raise IncompatibleError(
                f"{path} is an IP-Adapter of the kind {kind}, which PocketXL does not build; take a plain or Plus one"
            )


def _plain(projection: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    named = {}
    for name, stored in projection.items():
        module, _, kind = name.rpartition(".")
        if module not in _PLAIN:
            raise _stranger(path, f"{PROJECTION}{name}")
        named[f"image_proj.{_PLAIN[module]}.{kind}"] = stored
    return named


def _resampler(projection: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    named = {}
    for name, stored in projection.items():
        if name == "latents" and stored.shape[:1] == (1,):
            named["image_proj.latents"] = replace(stored, shape=stored.shape[1:])
            continue
        if name.rpartition(".")[0] in _ENDS:
            named[f"image_proj.{name}"] = stored
            continue
        found = _LAYER.fullmatch(name)
        layer = f"image_proj.layers.{found[1]}" if found else ""
        if found and found[2] == "0.to_kv":
            half = stored.shape[0] // 2
            named[f"{layer}.attn.to_k.{found[3]}"] = stored.rows(0, half)
            named[f"{layer}.attn.to_v.{found[3]}"] = stored.rows(half, 2 * half)
        elif found and found[2] in _BLOCK:
            named[f"{layer}.{_BLOCK[found[2]]}.{found[3]}"] = stored
        else:
            raise _stranger(path, f"{PROJECTION}{name}")
    return named


def _keys_and_values(
    tensors: Mapping[str, StoredTensor], unet: UNetArchitecture, path: Path
) -> dict[str, StoredTensor]:
    places = _places(unet)
    named = {}
    for name, stored in tensors.items():
        if not name.startswith(KEYS):
            continue
        found = _KEY.fullmatch(name.removeprefix(KEYS))
        if found is None:
            raise _stranger(path, name)
        if int(found[1]) not in places:
            raise IncompatibleError(
                f"{path} does not fit the base: it has {name}, and the base {len(places)} cross-attentions; take an "
                "IP-Adapter for SDXL"
            )
        named[f"to_{found[2]}_ip.{places[int(found[1])]}.weight"] = stored
    return named


def _places(unet: UNetArchitecture) -> dict[int, int]:
    """The file's number of an attention → its place in running order."""
    stages = [block.stage for block in unet.transformers() for _ in range(block.depth)]
    order = sorted(range(len(stages)), key=lambda place: _STAGES.index(stages[place].split(".")[0]))
    return {2 * number + 1: place for number, place in enumerate(order)}  # self-attentions are counted too


def _architecture(
    named: Mapping[str, StoredTensor], vision: VisionArchitecture, unet: UNetArchitecture, path: Path
) -> IPAdapterArchitecture:
    def shape(name: str) -> tuple[int, ...]:
        if name not in named or len(named[name].shape) != 2:
            raise IntegrityError(f"{path} lacks {name}, or it is no matrix; fetch the file again")
        return named[name].shape

    widths = tuple(shape(f"to_k_ip.{place}.weight")[0] for place in range(len(unet.attention_widths())))
    text = shape("to_k_ip.0.weight")[1]
    if "image_proj.latents" in named:
        layers = {name.split(".")[2] for name in named if name.startswith("image_proj.layers.")}
        tokens, width = shape("image_proj.latents")
        told, read = shape("image_proj.proj_in.weight")[1], vision.hidden_size
        found = IPAdapterArchitecture(
            vision=vision,
            cross_attention_dim=text,
            tokens=tokens,
            widths=widths,
            resampler_width=width,
            resampler_heads=shape("image_proj.layers.0.attn.to_q.weight")[0] // HEAD,
            resampler_depth=len(layers),
            resampler_inner=shape("image_proj.layers.0.ff.1.net.0.proj.weight")[0],
        )
    else:
        told, read = shape("image_proj.image_embeds.weight")[1], vision.projection_dim
        found = IPAdapterArchitecture(vision=vision, cross_attention_dim=text, tokens=TOKENS, widths=widths)
    if told != read:
        raise IncompatibleError(
            f"{path} reads {told} numbers of its image encoder, the one given has {read}; give the encoder that it was "
            "trained with (for most, and all that are called vit-h, CLIP ViT-H)"
        )
    if misfit := found.misfits(unet):
        raise IncompatibleError(f"{path} does not fit the base: {misfit}; take an IP-Adapter for SDXL")
    return found


def _stranger(path: Path, name: str) -> IncompatibleError:
    return IncompatibleError(f"{path} has {name}, which no plain or Plus IP-Adapter has; take one of those")
