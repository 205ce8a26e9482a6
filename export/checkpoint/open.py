"""Opens a checkpoint: a diffusers folder, a single file in the original layout, or a hub id.

Whatever reaches an engine (configurations, tokenizer bytes, tensors by name) is the same for all forms of one model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.errors import IncompatibleError, IntegrityError, StorageError
from ...engine.stored.header import SUFFIXES, read_header, refuse_pickle
from . import hub
from .detect import detect
from .diffusers_layout import STEMS, canonical
from .families import FAMILIES
from .inventory import refuse_scaled, take_stock
from .marks import Noise, noise_of
from .original_layout import UNET, Tensors, map_components, mismatch
from .other_vae import OtherVae, find_vae
from .settings import BUNDLED, Settings, read_settings
from .weights import Weights, open_weights

FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Each number of these has a nearest float32, and but for float64 that is the number itself."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Settings):
    """One SDXL-family model on disk: its settings and its weights, which are read when they are asked for."""

    source: Path
    components: Mapping[str, Weights]

    def weights(self, component: str) -> Weights:
        """The weights of `unet`, `text_encoder`, `text_encoder_2` or `vae` by diffusers' and transformers' names.

        Both text encoders have the names of `CLIPTextModelWithProjection` (`text_model.…`), as the public files do.
        """
        if component not in self.components:
            raise IncompatibleError(
                f"{self.source} has no {component}; a {self.kind} has {', '.join(self.components)}."
            )
        return self.components[component]


def open_checkpoint(
    source: str | Path, *, config: Path | None = None, noise: Noise | None = None, vae: Path | None = None
) -> Checkpoint:
    """Opens a diffusers folder, a single `.safetensors` file in the original SDXL layout, or a hub id.

    `config` is a diffusers folder whose JSON files and tokenizers describe a single file that is not public SDXL.
    `noise` counts more than what the checkpoint says of its noise. `vae`: a file or diffusers folder whose VAE is
    taken in place of the checkpoint's own.
    `IncompatibleError` for another model family, `IntegrityError` for missing or damaged files and for pickles,
    `StorageError` when `source` does not exist.
    """
    path, asked = Path(source), noise or Noise()
    other = None if vae is None else find_vae(vae)
    refuse_pickle(path)
    if path.is_file():
        return _open_file(path, config, asked, other)
    if config is not None and path.exists():
        raise IncompatibleError(f"{source} is no single file; a folder brings its own configurations: omit --config.")
    if path.is_dir():
        return _open_folder(path, asked, other)
    if hub.REPOSITORY.fullmatch(str(source)) and path.suffix not in SUFFIXES:
        return _open_folder(hub.snapshot(str(source)), asked, other)
    raise StorageError(
        f"{source} does not exist; give a diffusers folder, a .safetensors file or a hub id (owner/name)."
    )


def _open_folder(folder: Path, noise: Noise, vae: OtherVae | None) -> Checkpoint:
    if vae is None and (folder / "unet").is_dir() and not (folder / "vae").is_dir():
        raise IntegrityError(f"{folder} has no VAE (vae/config.json); fetch it again, or give one with --vae FILE")
    settings = _with_noise(read_settings(folder, vae.config_beside(folder) if vae else None), noise)
    names = ("unet", *settings.text_encoder_architectures, *(() if vae else ("vae",)))
    components = {name: canonical(name, open_weights(folder / name, STEMS[name])) for name in names}
    return _checkpoint(folder, settings, components, vae)


def _open_file(path: Path, config: Path | None, asked: Noise, vae: OtherVae | None) -> Checkpoint:
    if path.suffix.lower() not in SUFFIXES:
        raise IncompatibleError(f"{path} is no .safetensors file; give one, a diffusers folder or a hub id.")
    if config is not None and not (config / "model_index.json").is_file():
        what = "has no model_index.json" if config.exists() else "does not exist"
        raise StorageError(
            f"{config} {what}; --config takes a diffusers folder whose configurations describe {path}: leave it out "
            "for a checkpoint of SDXL's size"
        )
    header = read_header(path)
    refuse_scaled(header.tensors, path)
    kind = detect(header.tensors, path, vae=vae is None)
    beside = config or BUNDLED / kind
    settings = read_settings(beside, vae.config_beside(beside) if vae else None)
    if settings.kind != kind:
        raise IncompatibleError(
            f"{path} is a {kind}, but {config} configures a {settings.kind}; give one for a {kind}."
        )
    settings = _for_inpainting(settings, header.tensors)
    noise = noise_of(header, path, asked, settings.scheduler_config if config else None, kind)
    if config is None and (size := FAMILIES[kind].sample_sizes.get(noise.prediction_type or "")):
        settings = replace(settings, unet_architecture=replace(settings.unet_architecture, sample_size=size))
    components = map_components(header.tensors, settings, path, vae=vae is None)
    return _checkpoint(path, _with_noise(settings, noise), components, vae)


def _for_inpainting(settings: Settings, tensors: Tensors) -> Settings:
    """The settings of a model that paints into pictures, where the file's U-Net takes what such a one does."""
    unet, channels = settings.unet_architecture, settings.vae_architecture.latent_channels
    first = tensors.get(f"{UNET}input_blocks.0.0.weight")
    found = 0 if first is None or len(first.shape) != 4 else first.shape[1]
    wide = replace(unet, in_channels=found)
    return replace(settings, unet_architecture=wide) if wide.inpaints(channels) else settings


def _with_noise(settings: Settings, noise: Noise) -> Settings:
    return replace(settings, scheduler_config=noise.applied(settings.scheduler_config))


def _checkpoint(source: Path, settings: Settings, components: dict[str, Weights], vae: OtherVae | None) -> Checkpoint:
    """The checkpoint, once shapes and types of the weights agree with the configuration."""
    places = dict.fromkeys(components, source)
    if vae is not None:
        components["vae"], places["vae"] = vae.weights(settings.vae_architecture), vae.path
    for component, weights in components.items():
        refuse_scaled(weights, places[component])
        take_stock(component, weights, settings, places[component])
    for component, name, shape in _telling_shapes(settings):
        found = components[component].shape(name)
        if found != shape:
            raise mismatch(places[component], f"{name} of {component} has shape {found}, not {shape}")
    for component, weights in components.items():
        for name in weights:
            if weights.dtype(name) not in FLOATS:
                raise IncompatibleError(
                    f"{places[component]}: {name} of {component} is stored as {weights.dtype(name)}; "
                    f"{', '.join(FLOATS)} are allowed; take the checkpoint before it was quantized"
                )
    return Checkpoint(
        kind=settings.kind,
        unet_architecture=settings.unet_architecture,
        text_encoder_architectures=settings.text_encoder_architectures,
        vae_architecture=settings.vae_architecture,
        scheduler_config=settings.scheduler_config,
        force_zeros_for_empty_prompt=settings.force_zeros_for_empty_prompt,
        tokenizers=settings.tokenizers,
        source=source,
        components=components,
    )


def _telling_shapes(settings: Settings) -> list[tuple[str, str, tuple[int, ...]]]:
    """Component, tensor and shape of those that tell another model size, or another model, at once."""
    unet, vae = settings.unet_architecture, settings.vae_architecture
    width = unet.block_out_channels[0]
    added = (unet.time_embed_dim, unet.projection_class_embeddings_input_dim)
    latents = (vae.block_out_channels[-1], vae.latent_channels, 3, 3)
    return [
        ("unet", "conv_in.weight", (width, unet.in_channels, 3, 3)),
        *([] if unet.size_ids is None else [("unet", "add_embedding.linear_1.weight", added)]),
        ("vae", "decoder.conv_in.weight", latents),
        *(
            (name, "text_model.embeddings.token_embedding.weight", (text.vocab_size, text.hidden_size))
            for name, text in settings.text_encoder_architectures.items()
        ),
    ]
