"""The configurations and tokenizers of a model, read from the JSON files of a diffusers folder."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.architecture import ModelArchitecture, TextEncoderArchitecture, VaeArchitecture
from ...engine.errors import IncompatibleError, IntegrityError
from ...engine.sampling.levels.config import SchedulerConfig
from . import configuration
from .configuration import ALLOWED, Config, read_json
from .tokenizer_files import parse_merges, read_tokenizer

BUNDLED = Path(__file__).parent / "configs"
PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
TEXT_ENCODERS: Mapping[str, tuple[str, ...]] = {
    "base": ("text_encoder", "text_encoder_2"),
    "refiner": ("text_encoder_2",),
}
TIME_IDS: Mapping[str, int] = {"base": 6, "refiner": 5}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that is known of a model but its weights; equal for every form of the same model.

    `kind` is base or refiner; a refiner has no first text encoder. Configurations are diffusers' and transformers'
    JSON, reduced (see `configuration`).
    """

    kind: str
    unet_config: Config
    text_encoder_config: Config | None
    text_encoder_2_config: Config
    vae_config: Config
    scheduler_config: SchedulerConfig
    force_zeros_for_empty_prompt: bool
    tokenizers: Mapping[str, Mapping[str, bytes]]

    @property
    def architecture(self) -> ModelArchitecture:
        """The numbers of the U-Net, and which text encoders feed it."""
        return ModelArchitecture(
            kind=self.kind,
            unet=configuration.unet_architecture(self.unet_config, TIME_IDS[self.kind]),
            text_encoders=TEXT_ENCODERS[self.kind],
            scheduler=self.scheduler_config,
            force_zeros_for_empty_prompt=self.force_zeros_for_empty_prompt,
        )

    @property
    def vae_architecture(self) -> VaeArchitecture:
        """The numbers of the VAE."""
        return configuration.vae_architecture(self.vae_config)

    @property
    def text_encoder_configs(self) -> dict[str, Config]:
        """The configurations of the text encoders that this kind has, in the order of their outputs."""
        both = {"text_encoder": self.text_encoder_config, "text_encoder_2": self.text_encoder_2_config}
        return {name: config for name, config in both.items() if config is not None}

    def text_encoder_architecture(self, name: str) -> TextEncoderArchitecture:
        """The numbers of `text_encoder` (no pooled output) or `text_encoder_2`."""
        if name not in self.text_encoder_configs:
            raise IncompatibleError(f"A {self.kind} has no {name}; it has {', '.join(TEXT_ENCODERS[self.kind])}.")
        pooled = name == "text_encoder_2"
        return configuration.text_encoder_architecture(self.text_encoder_configs[name], pooled=pooled)

    def tokenizer_files(self, name: str) -> dict[str, bytes]:
        """vocab.json, merges.txt and tokenizer_config.json of `tokenizer` or `tokenizer_2`, in canonical form."""
        if name not in self.tokenizers:
            raise IncompatibleError(f"A {self.kind} has no {name}; it has {', '.join(self.tokenizers)}.")
        return dict(self.tokenizers[name])


def read_settings(folder: Path) -> Settings:
    """The settings in a diffusers folder; `IntegrityError` for missing files, `IncompatibleError` for other models."""
    index = read_json(folder / "model_index.json")
    unet = configuration.unet_config(read_json(folder / "unet/config.json"), folder / "unet/config.json")
    if index.get("_class_name") not in PIPELINES:
        raise IncompatibleError(
            f"{folder} is a {index.get('_class_name')}; {' and '.join(PIPELINES)} are allowed. {ALLOWED}."
        )
    first = _text_encoder(folder / "text_encoder/config.json") if _listed(index, "text_encoder") else None
    second = _text_encoder(folder / "text_encoder_2/config.json")
    kind = _kind(unet, first, second, folder)
    vae = configuration.vae_config(read_json(folder / "vae/config.json"), folder / "vae/config.json")
    if vae["latent_channels"] != unet["in_channels"]:
        raise IncompatibleError(
            f"{folder}: the U-Net takes {unet['in_channels']} channels, the VAE gives {vae['latent_channels']}; "
            f"inpainting models are not supported. {ALLOWED}."
        )
    merges = _bundled_merges() if folder.parent == BUNDLED else None
    tokenizers = ("tokenizer", "tokenizer_2") if kind == "base" else ("tokenizer_2",)
    return Settings(
        kind=kind,
        unet_config=unet,
        text_encoder_config=first,
        text_encoder_2_config=second,
        vae_config=vae,
        scheduler_config=SchedulerConfig.of(read_json(folder / "scheduler/scheduler_config.json")),
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
        tokenizers={name: read_tokenizer(folder / name, merges) for name in tokenizers},
    )


def _listed(index: Config, component: str) -> bool:
    """Whether model_index.json names a class for the component, as [library, class]; [null, null] says none."""
    entry = index.get(component)
    return isinstance(entry, list) and any(entry)


def _text_encoder(file: Path) -> Config:
    return configuration.text_encoder_config(read_json(file), file)


def _kind(unet: Config, first: Config | None, second: Config, folder: Path) -> str:
    """Base or refiner, by the number of size ids; the widths of the text encoders must agree with it."""
    ids, rest = divmod(
        unet["projection_class_embeddings_input_dim"] - second["projection_dim"], unet["addition_time_embed_dim"]
    )
    kind = next((kind for kind, count in TIME_IDS.items() if count == ids and not rest), None)
    width = second["hidden_size"] + (first["hidden_size"] if first else 0)
    if kind is None or (kind == "base") != (first is not None) or width != unet["cross_attention_dim"]:
        raise IncompatibleError(
            f"{folder}: the U-Net takes text of width {unet['cross_attention_dim']} and {ids} size ids, the text "
            f"encoders give width {width}; a base has two encoders and six ids, a refiner one and five. "
            f"{ALLOWED}."
        )
    return kind


def _bundled_merges() -> list[tuple[str, str]]:
    """The merges of CLIP's vocabulary, which all public SDXL tokenizers share."""
    try:
        return parse_merges(gzip.decompress((BUNDLED / "clip_merges.txt.gz").read_bytes()).decode())
    except (OSError, EOFError, ValueError) as error:
        raise IntegrityError(f"{BUNDLED / 'clip_merges.txt.gz'} is damaged; install pocketxl again.") from error
