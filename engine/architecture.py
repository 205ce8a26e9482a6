"""The numbers that shape a model of the family, and the edge of each component that follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .sampling.levels.config import SchedulerConfig
from .specs import INT, ComponentSpec, Role, TensorSpec
from .topology import Block, BlockKind, Topology

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


class TextOutput(StrEnum):
    """Which hidden states of a text encoder a U-Net reads."""

    PENULTIMATE = "penultimate"
    """Those before the last layer, as they are."""
    LAST_NORMED = "last_normed"
    """Those of the last layer, through the final norm."""


class Activation(StrEnum):
    """The non-linearity of a text encoder."""

    GELU = "gelu"
    QUICK_GELU = "quick_gelu"


@dataclass(frozen=True, kw_only=True)
class UNetArchitecture:
    """The numbers of diffusers' `UNet2DConditionModel` config that shape an SDXL-family U-Net.

    Levels are listed from the highest resolution down. `transformer_layers` is 0 for a level without attention
    (SDXL base: `(0, 2, 10)`).
    """

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    up_transformer_layers: tuple[int, ...]
    mid_transformer_layers: int
    layers_per_block: int
    heads: tuple[int, ...]
    cross_attention_dim: int
    addition_time_embed_dim: int
    projection_class_embeddings_input_dim: int
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    sample_size: int = 128
    size_ids: SizeIds = SizeIds.SIZE_CROP_TARGET
    time_cond_proj_dim: int = 0
    """Width of the embedding of the guidance scale that a distilled model takes (LCM's 256); 0 for one without."""

    @property
    def time_embed_dim(self) -> int:
        """Width of the time embedding."""
        return self.block_out_channels[0] * 4

    @property
    def time_ids(self) -> int:
        """How many size ids the conditioner takes."""
        return self.size_ids.numbers

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled text embedding."""
        return self.projection_class_embeddings_input_dim - self.time_ids * self.addition_time_embed_dim

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
                TensorSpec(name="pooled_prompt_embeds", shape=("batch", self.pooled_dim)),
                TensorSpec(name="time_ids", shape=("batch", self.time_ids)),
                TensorSpec(name="timesteps", shape=("steps",)),
                *([TensorSpec(name=GUIDANCE, shape=("batch",))] if self.time_cond_proj_dim else []),
            ),
            outputs=(
                TensorSpec(name="time_vectors", shape=("steps", "batch", sum(self.resnet_widths()))),
                *self.key_values(),
            ),
        )

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
class TextEncoderArchitecture:
    """The numbers of transformers' `CLIPTextConfig` that shape a text encoder, and what a model takes from it."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: Activation
    eos_token_id: int
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 77
    projection_dim: int = 0
    """Width of the pooled output; 0 for an encoder without one."""
    output: TextOutput = TextOutput.PENULTIMATE
    clip_skip: int = field(default=0, metadata={"sparse": True})  # as `folder.schema.SPARSE`
    """How many layers before the penultimate one the hidden states are read; diffusers' `clip_skip`, for the negative
    prompt too."""

    @property
    def pooled(self) -> bool:
        """Whether it gives the projected state of the end-of-text token too."""
        return self.projection_dim > 0

    def component(self) -> ComponentSpec:
        """Token ids → hidden states (and the projected pooled state of the end-of-text token)."""
        tokens = self.max_position_embeddings
        hidden = TensorSpec(name="hidden_states", shape=("batch", tokens, self.hidden_size))
        pooled = TensorSpec(name="pooled", shape=("batch", self.projection_dim))
        return ComponentSpec(
            role=Role.TEXT_ENCODER,
            inputs=(TensorSpec(name="input_ids", shape=("batch", tokens), dtype=INT),),
            outputs=(hidden, pooled) if self.pooled else (hidden,),
        )


@dataclass(frozen=True, kw_only=True)
class VaeArchitecture:
    """The numbers of diffusers' `AutoencoderKL` config that shape a VAE's decoder; the defaults are SDXL's."""

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


@dataclass(frozen=True, kw_only=True)
class ModelArchitecture:
    """One SDXL-family model: `kind` is `base` or `refiner`.

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

    family: str = "sdxl"
    denoisers: Mapping[str, ModelArchitecture]
    """`base`, `refiner` or both."""
    text_encoders: Mapping[str, TextEncoderArchitecture]
    vae: VaeArchitecture

    @property
    def clip_skip(self) -> int:
        """That of the text encoders, which all have the same."""
        return max(encoder.clip_skip for encoder in self.text_encoders.values())

    @property
    def native_size(self) -> int:
        """Width and height in pixels that the models were trained for."""
        first = self.denoisers["base"] if "base" in self.denoisers else next(iter(self.denoisers.values()))
        return first.unet.sample_size * self.vae.downscale

    def components(self) -> dict[str, ComponentSpec]:
        """What an engine of these models consists of: the place of each component in the folder → its edge."""
        models = self.denoisers.items()
        return {
            **{name: encoder.component() for name, encoder in self.text_encoders.items()},
            **{f"{kind}/conditioner": model.unet.conditioner() for kind, model in models},
            **{f"{kind}/unet": model.unet.unet() for kind, model in models},
            "vae_decoder": self.vae.decoder(),
        }


def tokenizer_of(text_encoder: str) -> str:
    """`text_encoder` → `tokenizer`; `text_encoder_2`, `refiner/text_encoder_2` → `tokenizer_2`."""
    return text_encoder.rsplit("/", 1)[-1].replace("text_encoder", "tokenizer")
