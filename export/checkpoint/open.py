"""Opens a checkpoint: a diffusers folder, a single file in the original layout, or a hub id.

Whatever reaches an engine (configurations, tokenizer bytes, tensors by name) is the same for all forms of one model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.errors import IncompatibleError, StorageError
from . import hub
from . import original_layout as single_file
from .inventory import refuse_scaled, says_nothing, take_stock
from .marks import Noise, noise_of
from .safetensors_header import StoredTensor, read_header, refuse_pickle
from .settings import BUNDLED, Settings, read_settings
from .weights import Weights, open_weights

STEMS: Mapping[str, str] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Each number of these has a nearest float32, and but for float64 that is the number itself."""
# What the VAE's attention was called before diffusers 0.17.
OLD_ATTENTION: Mapping[str, str] = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


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


def open_checkpoint(source: str | Path, *, config: Path | None = None, noise: Noise | None = None) -> Checkpoint:
    """Opens a diffusers folder, a single `.safetensors` file in the original SDXL layout, or a hub id.

    `config` is a diffusers folder whose JSON files and tokenizers describe a single file that is not public SDXL.
    `noise` counts more than what the checkpoint says of its noise.
    `IncompatibleError` for another model family, `IntegrityError` for missing or damaged files and for pickles,
    `StorageError` when `source` does not exist.
    """
    path, asked = Path(source), noise or Noise()
    refuse_pickle(path)
    if path.is_file():
        return _open_file(path, config, asked)
    if config is not None:
        raise IncompatibleError(f"{source} is no single file; a folder brings its own configurations: omit --config.")
    if path.is_dir():
        return _open_folder(path, asked)
    if hub.REPOSITORY.fullmatch(str(source)) and path.suffix != ".safetensors":
        return _open_folder(hub.snapshot(str(source)), asked)
    raise StorageError(
        f"{source} does not exist; give a diffusers folder, a .safetensors file or a hub id (owner/name)."
    )


def _open_folder(folder: Path, noise: Noise) -> Checkpoint:
    settings = _with_noise(read_settings(folder), noise)
    names = ("unet", *settings.text_encoder_architectures, "vae")
    return _checkpoint(
        folder, settings, {name: _canonical(name, open_weights(folder / name, STEMS[name])) for name in names}
    )


def _open_file(path: Path, config: Path | None, asked: Noise) -> Checkpoint:
    if path.suffix.lower() != ".safetensors":
        raise IncompatibleError(f"{path} is no .safetensors file; give one, a diffusers folder or a hub id.")
    header = read_header(path)
    refuse_scaled(header.tensors, path)
    kind = single_file.detect(header.tensors, path)
    settings = read_settings(config or BUNDLED / kind)
    if settings.kind != kind:
        raise IncompatibleError(
            f"{path} is a {kind}, but {config} configures a {settings.kind}; give one for a {kind}."
        )
    noise = noise_of(header, path, asked, settings.scheduler_config if config else None)
    return _checkpoint(path, _with_noise(settings, noise), single_file.map_components(header.tensors, settings, path))


def _with_noise(settings: Settings, noise: Noise) -> Settings:
    return replace(settings, scheduler_config=noise.applied(settings.scheduler_config))


def _checkpoint(source: Path, settings: Settings, components: dict[str, Weights]) -> Checkpoint:
    """The checkpoint, once shapes and types of the weights agree with the configuration."""
    for component, weights in components.items():
        refuse_scaled(weights, source)
        take_stock(component, weights, settings, source)
    for component, name, shape in _telling_shapes(settings):
        found = components[component].shape(name)
        if found != shape:
            raise single_file.mismatch(source, f"{name} of {component} has shape {found}, not {shape}")
    for component, weights in components.items():
        for name in weights:
            if weights.dtype(name) not in FLOATS:
                raise IncompatibleError(
                    f"{source}: {name} of {component} is stored as {weights.dtype(name)}; {', '.join(FLOATS)} are "
                    "allowed; take the checkpoint before it was quantized"
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
        ("unet", "add_embedding.linear_1.weight", added),
        ("vae", "decoder.conv_in.weight", latents),
        *(
            (name, "text_model.embeddings.token_embedding.weight", (text.vocab_size, text.hidden_size))
            for name, text in settings.text_encoder_architectures.items()
        ),
    ]


def _canonical(component: str, weights: Weights) -> Weights:
    """The weights of a folder under one set of names, whichever version of the libraries wrote them."""
    named: dict[str, StoredTensor] = {}
    for old in weights:
        stored, name = weights.stored(old), old
        if says_nothing(name):
            continue
        if component.startswith("text_encoder") and not name.startswith(("text_model.", "text_projection.")):
            name = f"text_model.{name}"
        if component == "vae" and ".attentions." in name:
            module, part, kind = name.rsplit(".", 2)
            name = f"{module}.{OLD_ATTENTION.get(part, part)}.{kind}"
            stored = stored.without_kernel()
        named[name] = stored
    return Weights(named)
