"""Opens a T2I adapter for SDXL: a diffusers folder, or a single `.safetensors` file in diffusers' or the first layout.

Its numbers are read off its tensors, so that a single file needs no configuration; one that is there must agree.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import IncompatibleError, StorageError
from ...engine.stored.header import SUFFIXES, StoredTensor, read_header, refuse_pickle
from ...engine.t2i_adapter import CUT, T2IAdapterArchitecture
from .configuration import JsonFile, read_json, shown
from .controlnet import STEM
from .inventory import hold_to, refuse_scaled
from .open import FLOATS
from .weights import Weights, open_weights

CLASS, KIND = "T2IAdapter", "full_adapter_xl"
PREFIX = "adapter."
_GREY, _COLOUR = CUT**2, 3 * CUT**2
_OTHERS: Mapping[str, str] = {
    "controlnet_cond_embedding": "a ControlNet, which `pocketxl build-controlnet` takes",
    "input_hint_block": "a ControlNet, which `pocketxl build-controlnet` takes",
    "ip_adapter.": "an IP-Adapter, which `pocketxl build-ip-adapter` takes",
    "lora": "a LoRA",
    "model.diffusion_model.": "a whole model",
}
_BLOCKS = 4
"""Of every adapter for SDXL in the first layout, which does not tell."""
_LAYER = re.compile(r"body\.(\d+)\.resnets\.(\d+)\.block1\.weight")
_FIRST = re.compile(r"body\.(\d+)\.(block[12]|in_conv)\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class T2IAdapterCheckpoint:
    """One T2I adapter on disk."""

    source: Path
    architecture: T2IAdapterArchitecture
    weights: Weights
    """By diffusers' names."""


def open_t2i_adapter(source: str | Path) -> T2IAdapterCheckpoint:
    """Opens a T2I adapter for SDXL base.

    `IncompatibleError` for another kind of file or adapter, `IntegrityError` for missing or damaged files and for
    pickles, `StorageError` when `source` does not exist.
    """
    path = Path(source)
    refuse_pickle(path)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise IncompatibleError(f"{path} is no .safetensors file; give one, or a diffusers folder of a T2I adapter")
        tensors = dict(read_header(path).tensors)
    elif path.is_dir():
        config = path / "config.json"
        _check(JsonFile(data=read_json(config), path=config))
        weights = open_weights(path, STEM)
        tensors = {name: weights.stored(name) for name in weights}
    else:
        raise StorageError(f"{source} does not exist; give a diffusers folder of a T2I adapter or a .safetensors file")
    refuse_scaled(tensors, path)
    named = _named(tensors, path)
    architecture = _architecture(named, path)
    _hold(named, architecture, path)
    return T2IAdapterCheckpoint(source=path, architecture=architecture, weights=Weights(named))


def _check(file: JsonFile) -> None:
    name, kind = file.data.get("_class_name"), file.data.get("adapter_type")
    if name != CLASS:
        raise IncompatibleError(
            f"{file.path} is no T2I adapter: its _class_name is {shown(name)}, {CLASS!r} is allowed"
        )
    if kind != KIND:
        raise IncompatibleError(
            f"{file.path} is a T2I adapter for Stable Diffusion 1.x: its adapter_type is {shown(kind)} where those for "
            f"SDXL have {KIND!r}; take one for SDXL"
        )
    if file.data.get("downscale_factor", CUT) != CUT:
        raise file.refuse("downscale_factor", file.data["downscale_factor"], str(CUT))


def _named(tensors: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    """By diffusers' names, in which blocks have layers; in the first layout layers are counted through."""
    plain = {name.removeprefix(PREFIX): stored for name, stored in tensors.items()}
    if "conv_in.weight" not in plain or not any(name.startswith("body.") for name in plain):
        light = any(name.startswith("body.") for name in plain)
        other = next((what for part, what in _OTHERS.items() if any(part in name for name in plain)), None)
        looks = (
            f", it looks like {other}" if other else ", it is a light one, for Stable Diffusion 1.x" if light else ""
        )
        raise IncompatibleError(f"{path} is no T2I adapter that PocketXL builds{looks}; take one for SDXL")
    if not any(_FIRST.fullmatch(name) for name in plain):
        return {f"{PREFIX}{name}": stored for name, stored in plain.items()}
    # One block of four has a change of width at its beginning, or of size: blocks are equally long.
    counted = {int(found[1]) for name in plain if (found := _FIRST.fullmatch(name))}
    layers = max(1, len(counted) // _BLOCKS)
    named = {}
    for name, stored in plain.items():
        if found := _FIRST.fullmatch(name):
            block, layer = divmod(int(found[1]), layers)
            part = found[2] if found[2] == "in_conv" else f"resnets.{layer}.{found[2]}"
            name = f"body.{block}.{part}.{found[3]}"
        named[f"{PREFIX}{name}"] = stored
    return named


def _architecture(named: Mapping[str, StoredTensor], path: Path) -> T2IAdapterArchitecture:
    taken = named[f"{PREFIX}conv_in.weight"].shape[1:2]
    if taken not in ((_GREY,), (_COLOUR,)):
        raise IncompatibleError(
            f"{path} is no T2I adapter for SDXL: its first convolution takes {shown(taken)} channels, "
            f"{_GREY} (of grey pictures) and {_COLOUR} are allowed; those for Stable Diffusion 1.x have 64 and 192"
        )
    widths: dict[int, int] = {}
    layers = 0
    for name, stored in named.items():
        if found := _LAYER.fullmatch(name.removeprefix(PREFIX)):
            widths[int(found[1])] = stored.shape[0]
            layers = max(layers, int(found[2]) + 1)
    if sorted(widths) != list(range(len(widths))) or not widths:
        raise IncompatibleError(f"{path} lacks blocks: it has those of the numbers {sorted(widths)}; fetch it again")
    return T2IAdapterArchitecture(
        hint_channels=taken[0] // _GREY, widths=tuple(widths[i] for i in sorted(widths)), layers=layers
    )


def _hold(named: Mapping[str, StoredTensor], architecture: T2IAdapterArchitecture, path: Path) -> None:
    widths = architecture.widths
    layers = {
        f"{PREFIX}body.{i}.resnets.{j}.block{k}"
        for i in range(len(widths))
        for j in range(architecture.layers)
        for k in (1, 2)
    }
    changes = {f"{PREFIX}body.{i}.in_conv" for i in range(1, len(widths)) if widths[i] != widths[i - 1]}
    modules = {f"{PREFIX}conv_in", *layers, *changes}
    hold_to("the T2I adapter", named, modules, modules, path, mismatch=_mismatch)
    for name, stored in named.items():
        if stored.dtype not in FLOATS:
            raise IncompatibleError(f"{path}: {name} is stored as {stored.dtype}; {', '.join(FLOATS)} are allowed")


def _mismatch(source: Path, what: str) -> IncompatibleError:
    return IncompatibleError(f"{source} is no T2I adapter for SDXL: {what}; fetch it again")
