"""Opens a ControlNet: a diffusers folder, or a single `.safetensors` file in diffusers' or the original layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.companion import HINT_LEVELS, ControlNetArchitecture, residuals
from ...engine.errors import IncompatibleError, StorageError
from ...engine.original_names import Places, unet_places
from ...engine.stored.header import SUFFIXES, StoredTensor, read_header, refuse_pickle
from .configuration import Config, JsonFile, read_json
from .controlnet_configuration import KINDS, OTHERS, controlnet_architecture
from .inventory import hold_to, refuse_scaled
from .open import FLOATS
from .original_layout import place_of
from .settings import BUNDLED
from .union import TASKS, as_union, described, union_modules
from .weights import Weights, open_weights

STEM = "diffusion_pytorch_model"
ORIGINAL = "control_model."
HINT = "controlnet_cond_embedding"
_ABSENT = ("conv_norm_out", "conv_out")
_TEXT = ".attn2.to_k.weight"
# Part of a tensor's name → what a file with such a name is. The first that is found counts.
_OTHERS: Mapping[str, str] = {
    "lllite_unet": "a ControlNet-LLLite, which is another kind of network",
    "ip_adapter.": "an IP-Adapter",
    "lora": "a LoRA",
    "adapter.body.": "a T2I adapter",
    "model.diffusion_model.": "a whole model",
    "conditioner.": "a whole model",
}


@dataclass(frozen=True, kw_only=True)
class ControlNetCheckpoint:
    """One ControlNet on disk."""

    source: Path
    architecture: ControlNetArchitecture
    weights: Weights
    """By diffusers' names."""


def open_controlnet(source: str | Path, *, config: Path | None = None) -> ControlNetCheckpoint:
    """Opens a ControlNet for SDXL base. `config`: a `config.json` that describes a single file of another size.

    `IncompatibleError` for another kind of model, and for one whose tensors are not those of its configuration;
    `IntegrityError` for missing or damaged files and for pickles, `StorageError` when `source` does not exist.
    """
    path = Path(source)
    refuse_pickle(path)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise IncompatibleError(f"{path} is no .safetensors file; give one, or a diffusers folder of a ControlNet")
        return _open_file(path, config)
    if not path.is_dir():
        raise StorageError(f"{source} does not exist; give a diffusers folder of a ControlNet or a .safetensors file")
    if config is not None:
        raise IncompatibleError(f"{source} is no single file; a folder brings its own configuration: omit --config")
    if (path / "model_index.json").is_file():
        raise IncompatibleError(f"{path} is a whole model, not a ControlNet; `pocketxl build` takes those")
    told, weights = path / "config.json", open_weights(path, STEM)
    data = read_json(told)
    if data.get(KINDS) is None:
        data = _told_by(data, {name: weights.stored(name) for name in weights})
    return _held(path, controlnet_architecture(JsonFile(data=data, path=told)), weights)


def controlnet_places(architecture: ControlNetArchitecture) -> Places:
    """Every module of the original layout (without `control_model.`) → diffusers' name."""
    places = {old: new for old, new in unet_places(architecture).items() if new not in _ABSENT}
    places["input_hint_block.0"] = f"{HINT}.conv_in"
    # A SiLU stands between two of them.
    inner = 2 * (HINT_LEVELS - 1)
    places |= {f"input_hint_block.{2 * (i + 1)}": f"{HINT}.blocks.{i}" for i in range(inner)}
    places[f"input_hint_block.{2 * (inner + 1)}"] = f"{HINT}.conv_out"
    skips = len(residuals(architecture)) - 1
    places |= {f"zero_convs.{i}.0": f"controlnet_down_blocks.{i}" for i in range(skips)}
    return places | {"middle_block_out.0": "controlnet_mid_block"}


def _open_file(path: Path, config: Path | None) -> ControlNetCheckpoint:
    tensors = {name.removeprefix(ORIGINAL): stored for name, stored in read_header(path).tensors.items()}
    original = any(name.startswith("input_hint_block.") for name in tensors)
    if not original and not any(name.startswith(HINT) for name in tensors):
        raise IncompatibleError(f"{path} is no ControlNet{_looks(tensors)}; take a ControlNet for SDXL")
    told = BUNDLED / "controlnet" / "config.json" if config is None else config
    if told.is_dir():
        told /= "config.json"
    _refuse_other_text(tensors, path)
    data = read_json(told)
    if data.get(KINDS) is None:
        data = _told_by(data, tensors)
    architecture = controlnet_architecture(JsonFile(data=data, path=told))
    if original:
        tensors = _renamed(tensors, architecture, path)
    return _held(path, architecture, Weights(tensors))


def _told_by(data: Config, tensors: Mapping[str, StoredTensor]) -> Config:
    """A configuration with the numbers of a union, where the tensors are one's: not every one says that it is."""
    stored = tensors.get(TASKS)
    return data if stored is None or len(stored.shape) != len(("kinds", "width")) else described(data, tensors)


def _renamed(
    tensors: Mapping[str, StoredTensor], architecture: ControlNetArchitecture, path: Path
) -> dict[str, StoredTensor]:
    places, named = controlnet_places(architecture), {}
    for name, stored in tensors.items():
        place = place_of(name, places)
        if place is None:
            raise _mismatch(path, f"it has {name}, for which the configuration has no place")
        named[place] = stored
    return named


def _refuse_other_text(tensors: Mapping[str, StoredTensor], path: Path) -> None:
    widths = {stored.shape[1] for name, stored in tensors.items() if name.endswith(_TEXT) and len(stored.shape) == 2}
    for width in widths & set(OTHERS):
        raise IncompatibleError(
            f"{path} is a ControlNet for {OTHERS[width]} (it reads text of {width} numbers); take one for SDXL"
        )


def _looks(tensors: Mapping[str, StoredTensor]) -> str:
    found = next((what for part, what in _OTHERS.items() if any(part in name for name in tensors)), None)
    return "" if found is None else f", it looks like {found}"


def _held(source: Path, architecture: ControlNetArchitecture, weights: Weights) -> ControlNetCheckpoint:
    """The ControlNet, once its tensors are those that its configuration asks for."""
    refuse_scaled(weights, source)
    _refuse_other_text({name: weights.stored(name) for name in weights}, source)
    modules, union = set(controlnet_places(architecture).values()), architecture.control_types > 0
    if union:
        modules |= union_modules(architecture)
    if union != (TASKS in weights):
        told = f"a ControlNet-Union of {architecture.control_types} kinds" if union else "a ControlNet for one kind"
        raise _mismatch(source, f"that is of {told} of hints, and it has {'no ' if union else 'a '}{TASKS}")
    hold_to("the ControlNet", (n for n in weights if n != TASKS), modules, modules, source, mismatch=_mismatch)
    if union:
        weights = Weights(as_union({name: weights.stored(name) for name in weights}))
    for name in weights:
        if weights.dtype(name) not in FLOATS:
            raise IncompatibleError(
                f"{source}: {name} is stored as {weights.dtype(name)}; {', '.join(FLOATS)} are allowed; take the "
                "ControlNet before it was quantized"
            )
    return ControlNetCheckpoint(source=source, architecture=architecture, weights=weights)


def _mismatch(source: Path, what: str) -> IncompatibleError:
    return IncompatibleError(
        f"{source} does not fit its configuration: {what}; if it is of another size than those for SDXL, give its "
        "config.json (--config FILE)"
    )
