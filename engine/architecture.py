"""The numbers that shape a model of the family, and the edge of each component that follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .sampling.levels.config import SchedulerConfig
from .specs import SPARSE, ComponentSpec, Dim, Role, TensorSpec
from .text_architecture import Activation as Activation
from .text_architecture import TextEncoderArchitecture as TextEncoderArchitecture
from .text_architecture import TextOutput as TextOutput
from .tiny import TINY_DECODER, TinyDecoderArchitecture
from .topology import Block, BlockKind, Depths, Topology

SDXL, SD15, SD21 = "sdxl", "sd15", "sd21"
FAMILIES = (SDXL, SD15, SD21)
"""What an engine may be of."""
GUIDANCE = "guidance"
"""The conditioner's input for the guidance scale less one, where a model takes it as an input."""


class SizeIds(StrEnum):
    """What a U-Net is told of a picture besides the prompt: numbers that join the time embedding."""

    SIZE_CROP_TARGET = "size_crop_target"
    """Height and width of original, crop and target."""
    SIZE_CROP_SCORE = "size_crop_score"
    """Height and width of original and crop, then an aesthetic score."""

    @property
    def numbers(self) -> int:
        """How many numbers these are."""
        return 6 if self is SizeIds.SIZE_CROP_TARGET else 5


@dataclass(frozen=True, kw_only=True)
class UNetArchitecture:
    """The numbers of diffusers' `UNet2DConditionModel` config that shape a U-Net.

    Levels are listed from the highest resolution down. `transformer_layers` is 0 for a level without attention
    (SDXL base: `(0, 2, 10)`), and has a number for each layer where these differ.
    """

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    transformer_layers: Depths
    up_transformer_layers: Depths
    mid_transformer_layers: int
    """0: the middle is one ResNet alone."""
    layers_per_block: int
    heads: tuple[int, ...]
    cross_attention_dim: int
    addition_time_embed_dim: int = 0
    projection_class_embeddings_input_dim: int = 0
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    sample_size: int = 128
    size_ids: SizeIds | None = SizeIds.SIZE_CROP_TARGET
    """None: neither sizes nor pooled text, as in Stable Diffusion 1 and 2; both widths of these are then 0."""
    time_cond_proj_dim: int = 0
    """Width of the embedding of the guidance scale that a distilled model takes (LCM's 256); 0 for one without."""

    @property
    def time_embed_dim(self) -> int:
        """Width of the time embedding."""
        return self.block_out_channels[0] * 4

    @property
    def time_ids(self) -> int:
        """How many size ids the conditioner takes."""
        return 0 if self.size_ids is None else self.size_ids.numbers

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled text embedding."""
        return self.projection_class_embeddings_input_dim - self.time_ids * self.addition_time_embed_dim

    def inpaints(self, latent_channels: int) -> bool:
        """Whether it takes a mask and the latents of the masked picture beside those that it denoises."""
        return self.in_channels == 2 * latent_channels + 1

    def blocks(self) -> tuple[Block, ...]:
        """Every block between the first and the last convolution, in the order in which they run."""
        topology = Topology(
            channels=self.block_out_channels,
            heads=self.heads,
            layers=self.layers_per_block,
            down_depths=self.transformer_layers,
            mid_depth=self.mid_transformer_layers,
            up_depths=self.up_transformer_layers,
        )
        return tuple(topology.blocks())

    def resnets(self) -> tuple[Block, ...]:
        """The ResNets in running order."""
        return tuple(block for block in self.blocks() if block.kind is BlockKind.RESNET)

    def transformers(self) -> tuple[Block, ...]:
        """The transformers in running order."""
        return tuple(block for block in self.blocks() if block.kind is BlockKind.TRANSFORMER)

    def resnet_widths(self) -> tuple[int, ...]:
        """Output channels of every ResNet in running order: the split of `time_vectors`."""
        return tuple(block.out_channels for block in self.resnets())

    def attention_widths(self) -> tuple[int, ...]:
        """Channels of every transformer block (each holds one cross-attention) in running order."""
        return tuple(block.out_channels for block in self.transformers() for _ in range(block.depth))

    def conditioner(self) -> ComponentSpec:
        """Prompt, sizes and all timesteps → cross-attention keys/values and per-step time vectors."""
        return ComponentSpec(
            role=Role.CONDITIONER,
            inputs=(
                TensorSpec(name="prompt_embeds", shape=("batch", "tokens", self.cross_attention_dim)),
                *(
                    []
                    if self.size_ids is None
                    else [
                        TensorSpec(name="pooled_prompt_embeds", shape=("batch", self.pooled_dim)),
                        TensorSpec(name="time_ids", shape=("batch", self.time_ids)),
                    ]
                ),
                TensorSpec(name="timesteps", shape=("steps",)),
                *([TensorSpec(name=GUIDANCE, shape=("batch",))] if self.time_cond_proj_dim else []),
            ),
            outputs=(
                TensorSpec(name="time_vectors", shape=("steps", self._time_rows, sum(self.resnet_widths()))),
                *self.key_values(),
            ),
        )

    @property
    def _time_rows(self) -> Dim:
        """One for every row alike where nothing but the timestep is in them."""
        return 1 if self.size_ids is None and not self.time_cond_proj_dim else "batch"

    def key_values(self) -> tuple[TensorSpec, ...]:
        """Keys and values of every cross-attention, named `key_values.<block>.key|value`."""
        return tuple(
            TensorSpec(name=f"key_values.{i}.{part}", shape=("batch", "tokens", width))
            for i, width in enumerate(self.attention_widths())
            for part in ("key", "value")
        )

    def unet(self) -> ComponentSpec:
        """Scaled latents, one step's time vectors and the keys/values → the model's prediction."""
        return ComponentSpec(
            role=Role.UNET,
            inputs=(
                TensorSpec(name="latents", shape=("batch", self.in_channels, "height", "width")),
                TensorSpec(name="time_vectors", shape=("batch", sum(self.resnet_widths()))),
                *self.key_values(),
            ),
            outputs=(TensorSpec(name="prediction", shape=("batch", self.out_channels, "height", "width")),),
        )


@dataclass(frozen=True, kw_only=True)
class VaeArchitecture:
    """The numbers of diffusers' `AutoencoderKL` config that shape a VAE; the defaults are SDXL's."""

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    latent_channels: int = 4
    out_channels: int = 3
    scaling_factor: float = 0.13025

    @property
    def downscale(self) -> int:
        """Pixels of the picture per latent, along each side."""
        return 1 << (len(self.block_out_channels) - 1)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a picture of `height` × `width` pixels."""
        return (self.latent_channels, height // self.downscale, width // self.downscale)

    def decoder(self) -> ComponentSpec:
        """Latents already divided by the scaling factor → picture in [-1, 1]."""
        return ComponentSpec(
            role=Role.VAE_DECODER,
            inputs=(TensorSpec(name="latents", shape=("batch", self.latent_channels, "height", "width")),),
            outputs=(TensorSpec(name="image", shape=("batch", self.out_channels, "image_height", "image_width")),),
        )

    def encoder(self) -> ComponentSpec:
        """Picture in [-1, 1] → mean and logarithm of the variance of its latents, before the scaling factor."""
        latents = ("batch", self.latent_channels, "height", "width")
        return ComponentSpec(
            role=Role.VAE_ENCODER,
            inputs=(TensorSpec(name="image", shape=("batch", self.out_channels, "image_height", "image_width")),),
            outputs=(TensorSpec(name="mean", shape=latents), TensorSpec(name="logvar", shape=latents)),
        )


@dataclass(frozen=True, kw_only=True)
class ModelArchitecture:
    """One model: `kind` is `base` or `refiner`.

    `text_encoders` lists the components whose hidden states are concatenated, in order
    (base: `text_encoder`, `text_encoder_2`; refiner: `text_encoder_2` alone).
    """

    kind: str
    unet: UNetArchitecture
    text_encoders: tuple[str, ...]
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    force_zeros_for_empty_prompt: bool = True

    def guided(self, guidance_scale: float) -> bool:
        """Whether a negative prompt stands beside the prompt: a model that is told the scale needs none."""
        return guidance_scale > 1 and not self.unet.time_cond_proj_dim


@dataclass(frozen=True, kw_only=True)
class Models:
    """What an engine makes pictures with, wherever its weights lie."""

    family: str = SDXL
    """`sdxl`, `sd15` or `sd21`."""
    denoisers: Mapping[str, ModelArchitecture]
    """`base`, `refiner` or both."""
    text_encoders: Mapping[str, TextEncoderArchitecture]
    vae: VaeArchitecture
    encodes: bool = field(default=False, metadata={"sparse": True})
    """Whether the VAE's encoder is there, which pictures as input need."""
    tiny_decoder: TinyDecoderArchitecture | None = field(default=None, metadata=SPARSE)
    """None: there is none."""

    latent_colours: tuple[tuple[float, ...], ...] = field(default=(), metadata=SPARSE)
    """Red, green and blue of each latent channel, then what is added (`engine.preview`); empty: not known."""

    @property
    def clip_skip(self) -> int:
        """That of the text encoders, which all have the same."""
        return max(encoder.clip_skip for encoder in self.text_encoders.values())

    @property
    def native_size(self) -> int:
        """Width and height in pixels that the models were trained for."""
        first = self.denoisers["base"] if "base" in self.denoisers else next(iter(self.denoisers.values()))
        return first.unet.sample_size * self.vae.downscale

    def scaling_factor(self, decoder: str) -> float:
        """What latents of unit variance are divided by for that component."""
        tiny = self.tiny_decoder if decoder == TINY_DECODER else None
        return self.vae.scaling_factor if tiny is None else tiny.scaling_factor

    def components(self) -> dict[str, ComponentSpec]:
        """What an engine of these models consists of: the place of each component in the folder → its edge."""
        models = self.denoisers.items()
        return {
            **{name: encoder.component() for name, encoder in self.text_encoders.items()},
            **{f"{kind}/conditioner": model.unet.conditioner() for kind, model in models},
            **{f"{kind}/unet": model.unet.unet() for kind, model in models},
            "vae_decoder": self.vae.decoder(),
            **({"vae_encoder": self.vae.encoder()} if self.encodes else {}),
            **({} if self.tiny_decoder is None else {TINY_DECODER: self.tiny_decoder.decoder()}),
        }


NO_MODELS = Models(denoisers={}, text_encoders={}, vae=VaeArchitecture())
"""Those of a folder whose network goes with every engine."""


def block_names(architecture: UNetArchitecture) -> list[str]:
    """Diffusers' module names of the transformer blocks in running order."""
    return [
        f"{transformer.name}.transformer_blocks.{i}"
        for transformer in architecture.transformers()
        for i in range(transformer.depth)
    ]


def tokenizer_of(text_encoder: str) -> str:
    """`text_encoder` → `tokenizer`; `text_encoder_2`, `refiner/text_encoder_2` → `tokenizer_2`."""
    return text_encoder.rsplit("/", 1)[-1].replace("text_encoder", "tokenizer")
