"""Which tensors of a file belong to which layer of an engine, from its header alone, and why a file does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..architecture import Models
from ..errors import IncompatibleError, IntegrityError
from ..stored.header import StoredTensor
from .families import instead, made_for
from .keys import ALPHA, BIAS, MAGNITUDE, TE1, TE2, UNET, read_key
from .kinds import Kind, kind_of, shapes_of
from .layers import Layer
from .names import Names, text_encoder_names, unet_names

MERGE = "merge it into the checkpoint and build that"
_REFUSED = {
    MAGNITUDE: "a DoRA: it rescales the model's own weights, which an engine no longer has in floats",
    "ia3": "an (IA)³: it rescales the model's own weights, which an engine no longer has in floats",
    "oft": "an OFT or BOFT: it turns the model's own weights, which an engine no longer has in floats",
    "glora": "a GLoRA: it multiplies the model's own weights, which an engine no longer has in floats",
}
_ORIGINAL = ("input_blocks_", "middle_block_", "output_blocks_")
Parts = Mapping[str, StoredTensor]
Name = tuple[str, str]
"""Place and module, as `keys.Key` has them."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a file has for one layer."""

    layer: Layer
    kind: Kind
    parts: Parts
    place: str
    module: str
    """The file's name of the layer, with `_` for every dot."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a file changes in an engine."""

    changes: tuple[Change, ...]
    unmatched: tuple[str, ...]
    """Keys without a layer: of modules that the engine does not have, of norms and of biases."""


def match(path: Path, tensors: Parts, models: Models) -> Match:
    """Find the layers of a file's tensors.

    Raises `IncompatibleError` for a file of another family or of a kind that no pair can be, `IntegrityError` for parts
    that are missing or do not fit each other.
    """
    modules, unmatched = _modules(path, tensors)
    layers = _layers(modules, models)
    for key in tensors:
        read = read_key(key)
        if read is not None and read[:2] in modules and read[:2] not in layers:
            unmatched.append(key)
    asked = {place for place, _ in modules}
    if not layers or (UNET in asked and not any(place == UNET for place, _ in layers)):
        raise foreign(path, tensors, models)
    changes = [
        Change(layer=layer, kind=_kind(path, module, modules[place, module]), parts=modules[place, module],
               place=place, module=module)
        for (place, module), layer in layers.items() if layer.component
    ]  # fmt: skip
    _check_sizes(path, tensors, changes, models)
    return Match(changes=tuple(changes), unmatched=tuple(sorted(unmatched)))


def _modules(path: Path, tensors: Parts) -> tuple[dict[Name, dict[str, StoredTensor]], list[str]]:
    """The file's modules, and the keys that are of none."""
    modules: dict[Name, dict[str, StoredTensor]] = {}
    unmatched: list[str] = []
    for key, stored in tensors.items():
        read = read_key(key)
        if read is None or read.part == BIAS:
            unmatched.append(key)
            continue
        if read.part in _REFUSED:
            raise IncompatibleError(f"{path} is {_REFUSED[read.part]}; {MERGE}, or take the same as a plain LoRA")
        parts = modules.setdefault(read[:2], {})
        if read.part in parts:
            raise IntegrityError(f"{path} has {key} twice, in two spellings; save the adapter again")
        parts[read.part] = stored
    # diffusers' rule for files that have a U-Net in both layouts: they say the same twice.
    if any(module.startswith("down_blocks_") for _, module in modules):
        modules = {name: parts for name, parts in modules.items() if not name[1].startswith(_ORIGINAL)}
    return modules, unmatched


def _layers(modules: Mapping[Name, Parts], models: Models) -> dict[Name, Layer]:
    """The layer of each module that has one. The U-Net is the one that most modules fit."""
    texts, unets = text_encoder_names(models), unet_names(models)
    own = {module: parts for (place, module), parts in modules.items() if place == UNET}
    best: Names = max(unets.values(), key=lambda names: _fits(own, names), default={})
    tables = {UNET: best, TE1: texts[TE1], TE2: texts[TE2]}
    return {(place, module): layer for place, module in modules if (layer := tables[place].get(module)) is not None}


def _fits(modules: Mapping[str, Parts], names: Names) -> tuple[int, int]:
    """How many modules have a layer of their size, and how many one at all."""
    known = [(names[module], parts) for module, parts in modules.items() if module in names]
    return sum(_size(parts) == (layer.out_channels, layer.columns) for layer, parts in known), len(known)


def _size(parts: Parts) -> tuple[int, int] | None:
    kind = kind_of(parts)
    try:
        return None if kind is None else kind.size(shapes_of(parts))
    except (KeyError, ValueError, IndexError):
        return None


def _kind(path: Path, module: str, parts: Parts) -> Kind:
    kind = kind_of(parts)
    if kind is None:
        raise IntegrityError(f"{path} has {min(parts)} for {module} and nothing that it is of; save the adapter again")
    if strange := sorted(parts.keys() - kind.parts - {ALPHA}):
        raise IntegrityError(f"{path} has {strange[0]} beside a {kind.name} of {module}; save the adapter again")
    try:
        kind.size(shapes_of(parts))
    except KeyError as error:
        raise IntegrityError(f"{path} lacks {error.args[0]} of {module}; fetch it again") from error
    except (ValueError, IndexError) as error:
        shapes = ", ".join(f"{part} {tensor.shape}" for part, tensor in sorted(parts.items()))
        raise IntegrityError(f"{path}: {shapes} of {module} do not fit each other; fetch it again") from error
    return kind


def _check_sizes(path: Path, tensors: Parts, changes: list[Change], models: Models) -> None:
    """Every layer has the engine's size, or the error tells whose they are."""
    wrong = [change for change in changes if _size(change.parts) != (change.layer.out_channels, change.layer.columns)]
    if not wrong:
        return
    unet = [change for change in changes if change.place == UNET]
    if len(wrong) == len(changes) or (unet and all(change in wrong for change in unet)):
        raise foreign(path, tensors, models)
    layer, (rows, columns) = wrong[0].layer, _size(wrong[0].parts) or (0, 0)
    raise IncompatibleError(
        f"{path}: {layer.name} is {rows}x{columns} there and {layer.out_channels}x{layer.columns} in this engine "
        f"({len(wrong)} of {len(changes)} layers do not fit); take an adapter for this model"
    )


def foreign(path: Path, tensors: Parts, models: Models) -> IncompatibleError:
    """The error for a file of which nothing fits: it names what the file is, as far as that can be told."""
    here = f"this engine is {models.family}, {' + '.join(models.denoisers)}"
    if (what := instead(tensors)) is not None:
        return IncompatibleError(f"{path} is {what}, not a LoRA; give a LoRA's .safetensors file")
    if (family := made_for(tensors)) is not None:
        return IncompatibleError(f"{path} is an adapter for {family}, and {here}; take one for this model")
    first = ", ".join(key[:80] for key in sorted(tensors)[:3])
    return IncompatibleError(
        f"{path}: none of its {len(tensors)} keys ({first}, …) is of a layer that fits, and {here}; take one for this "
        "model"
    )
