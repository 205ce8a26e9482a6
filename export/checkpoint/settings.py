"""The configurations and tokenizers of a model, read from the JSON files of a diffusers folder."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.architecture import (
    Activation,
    ModelArchitecture,
    TextEncoderArchitecture,
    UNetArchitecture,
    VaeArchitecture,
)
from ...engine.errors import IncompatibleError, IntegrityError
from ...engine.sampling.levels.config import SchedulerConfig
from ...engine.text.tokenizer import tokenizer_of
from .configuration import ALLOWED, Config, JsonFile, read_json, shown
from .families import FAMILIES, PIPELINES, SD_PIPELINES
from .scheduler_configuration import scheduler_config
from .text_configuration import text_encoder_architecture
from .tokenizer_files import hold_to_encoder, parse_merges, read_tokenizer
from .unet_configuration import unet_architecture
from .vae_configuration import vae_architecture

MOST_PIXELS = 4096
"""Native width and height: more pixels than this squared are no request that can be made."""
BUNDLED = Path(__file__).parent / "configs"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that is known of a model but its weights; equal for every form of the same model.

    `kind` is a row of `FAMILIES`.
    """

    kind: str
    unet_architecture: UNetArchitecture
    text_encoder_architectures: Mapping[str, TextEncoderArchitecture]
    """In the order in which their hidden states are joined."""
    vae_architecture: VaeArchitecture
    scheduler_config: SchedulerConfig
    force_zeros_for_empty_prompt: bool
    tokenizers: Mapping[str, Mapping[str, bytes]]

    @property
    def architecture(self) -> ModelArchitecture:
        """The numbers of the U-Net, and which text encoders feed it."""
        return ModelArchitecture(
            kind=FAMILIES[self.kind].denoiser,
            unet=self.unet_architecture,
            text_encoders=tuple(self.text_encoder_architectures),
            scheduler=self.scheduler_config,
            force_zeros_for_empty_prompt=self.force_zeros_for_empty_prompt,
        )

    @property
    def native_size(self) -> int:
        """Width and height in pixels that the model was trained for."""
        return self.unet_architecture.sample_size * self.vae_architecture.downscale

    def text_encoder_architecture(self, name: str) -> TextEncoderArchitecture:
        """The numbers of `text_encoder` or `text_encoder_2`."""
        if name not in self.text_encoder_architectures:
            raise IncompatibleError(f"a {self.kind} has no {name}; it has {', '.join(self.text_encoder_architectures)}")
        return self.text_encoder_architectures[name]

    def tokenizer_files(self, name: str) -> dict[str, bytes]:
        """vocab.json, merges.txt and tokenizer_config.json of `tokenizer` or `tokenizer_2`, in canonical form."""
        if name not in self.tokenizers:
            raise IncompatibleError(f"a {self.kind} has no {name}; it has {', '.join(self.tokenizers)}")
        return dict(self.tokenizers[name])


def read_settings(folder: Path, vae_config: Path | None = None) -> Settings:
    """The settings in a diffusers folder; `vae_config` is the file that describes a VAE from elsewhere.

    `IntegrityError` for missing files, `IncompatibleError` for other models.
    """
    index = read_json(folder / "model_index.json")
    unet_file = _json(folder, "unet")
    kind = _kind(folder, index)
    family = FAMILIES[kind]
    unet = unet_architecture(unet_file, family.size_ids)
    if index.get("_class_name") not in family.pipelines:
        raise IncompatibleError(
            f"{folder} is a {shown(index.get('_class_name'))}; {' and '.join(PIPELINES)} are allowed. {ALLOWED}"
        )
    texts = {name: text_encoder_architecture(_json(folder, name), row) for name, row in family.text_encoders.items()}
    _fit(unet, texts, folder)
    vae_file = vae_config or folder / "vae/config.json"
    vae = vae_architecture(JsonFile(data=read_json(vae_file), path=vae_file))
    if unet.in_channels != vae.latent_channels and not unet.inpaints(vae.latent_channels):
        raise IncompatibleError(
            f"{folder}: the U-Net takes {unet.in_channels} channels, the VAE gives {vae.latent_channels}; as many are "
            f"allowed, or {2 * vae.latent_channels + 1} for inpainting. {ALLOWED}"
        )
    zeros = index.get("force_zeros_for_empty_prompt", family.zeros)
    if type(zeros) is not bool:
        raise JsonFile(data=index, path=folder / "model_index.json").refuse(
            "force_zeros_for_empty_prompt", zeros, "true or false"
        )
    native = unet.sample_size * vae.downscale
    if native % 8 or native > MOST_PIXELS:
        raise IncompatibleError(
            f"{folder}: pictures of sample_size {unet.sample_size} would be {native} pixels wide; a multiple of 8 "
            f"up to {MOST_PIXELS} is allowed. {ALLOWED}"
        )
    return Settings(
        kind=kind,
        unet_architecture=unet,
        text_encoder_architectures=texts,
        vae_architecture=vae,
        scheduler_config=scheduler_config(_json(folder, "scheduler", "scheduler_config.json"), index.get("scheduler")),
        force_zeros_for_empty_prompt=zeros,
        tokenizers={tokenizer_of(name): _tokenizer(folder / tokenizer_of(name), text) for name, text in texts.items()},
    )


def _kind(folder: Path, index: Config) -> str:
    """The row of `FAMILIES`, told by the text encoders; OpenCLIP's, which Stable Diffusion 2 has, are without quick."""
    if index.get("_class_name") not in SD_PIPELINES:
        return "base" if _listed(index, "text_encoder") else "refiner"
    activation = _json(folder, "text_encoder").said("hidden_act", Activation.QUICK_GELU)
    return "sd15" if activation == Activation.QUICK_GELU else "sd21"


def _tokenizer(folder: Path, encoder: TextEncoderArchitecture) -> dict[str, bytes]:
    """The files of a tokenizer that fits its encoder; the bundled ones share CLIP's vocabulary."""
    bundled = folder.parents[1] == BUNDLED
    files = read_tokenizer(folder, _bundled_merges() if bundled else None)
    hold_to_encoder(files, encoder, folder)
    return files


def _json(folder: Path, component: str, name: str = "config.json") -> JsonFile:
    path = folder / component / name
    return JsonFile(data=read_json(path), path=path)


def _listed(index: Config, component: str) -> bool:
    """Whether model_index.json names a class for the component, as [library, class]; [null, null] says none."""
    entry = index.get(component)
    return isinstance(entry, list) and any(entry)


def _fit(unet: UNetArchitecture, texts: Mapping[str, TextEncoderArchitecture], folder: Path) -> None:
    """The text encoders must give what the U-Net takes."""
    width = sum(text.hidden_size for text in texts.values())
    pooled = sum(text.projection_dim for text in texts.values())
    if width != unet.cross_attention_dim or pooled != unet.pooled_dim:
        raise IncompatibleError(
            f"{folder}: the U-Net takes text of width {unet.cross_attention_dim} and, beside {unet.time_ids} size ids, "
            f"{unet.pooled_dim} pooled, the text encoders give {width} and {pooled}; an SDXL base has two encoders and "
            f"six ids, a refiner one and five, Stable Diffusion 1 and 2 one and none. {ALLOWED}"
        )


def _bundled_merges() -> list[tuple[str, str]]:
    """The merges of CLIP's vocabulary, which all public SDXL tokenizers share."""
    try:
        return parse_merges(gzip.decompress((BUNDLED / "clip_merges.txt.gz").read_bytes()).decode())
    except (OSError, EOFError, ValueError) as error:
        raise IntegrityError(f"{BUNDLED / 'clip_merges.txt.gz'} is damaged; install pocketxl again") from error
