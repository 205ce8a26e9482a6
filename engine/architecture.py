"""The numbers that shape a model of the family, and the edge of each component that follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .sampling.levels.config import SchedulerConfig
from .specs import INT, ComponentSpec, Role, TensorSpec


@dataclass(frozen=True, kw_only=True)
class UNetArchitecture:
    """The numbers of diffusers' `UNet2DConditionModel` config that shape an SDXL-family U-Net.

    Levels are listed from the highest resolution down. `transformer_layers` is 0 for a level without attention
    (SDXL base: `(0, 2, 10)`). `resnets` and `attentions` list the blocks in the order in which they run.
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
    time_ids: int = 6
    """Six size/crop/target ids for a base, five (size, crop, aesthetic score) for a refiner."""

    @property
    def time_embed_dim(self) -> int:
        """Width of the time embedding."""
        return self.block_out_channels[0] * 4

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled text embedding."""
        return self.projection_class_embeddings_input_dim - self.time_ids * self.addition_time_embed_dim

    def resnet_widths(self) -> tuple[int, ...]:
        """Output channels of every ResNet block in running order: the split of `time_vectors`."""
        down = [c for c in self.block_out_channels for _ in range(self.layers_per_block)]
        up = [c for c in reversed(self.block_out_channels) for _ in range(self.layers_per_block + 1)]
        return (*down, self.block_out_channels[-1], self.block_out_channels[-1], *up)

    def attention_widths(self) -> tuple[int, ...]:
        """Channels of every transformer block (each holds one cross-attention) in running order."""
        down = [
            c
            for c, depth in zip(self.block_out_channels, self.transformer_layers, strict=True)
            for _ in range(depth * self.layers_per_block)
        ]
        mid = [self.block_out_channels[-1]] * self.mid_transformer_layers
        up = [
            c
            for c, depth in zip(reversed(self.block_out_channels), self.up_transformer_layers, strict=True)
            for _ in range(depth * (self.layers_per_block + 1))
        ]
        return (*down, *mid, *up)

    def conditioner(self) -> ComponentSpec:
        """Prompt, sizes and all timesteps → cross-attention keys/values and per-step time vectors."""
        return ComponentSpec(
            role=Role.CONDITIONER,
            inputs=(
                TensorSpec(name="prompt_embeds", shape=("batch", "tokens", self.cross_attention_dim)),
                TensorSpec(name="pooled_prompt_embeds", shape=("batch", self.pooled_dim)),
                TensorSpec(name="time_ids", shape=("batch", self.time_ids)),
                TensorSpec(name="timesteps", shape=("steps",)),
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
    """The numbers of a CLIP text encoder that its edge depends on."""

    hidden_size: int
    projection_dim: int = 0
    """Width of the pooled output; 0 for an encoder without one."""
    max_tokens: int = 77

    def component(self) -> ComponentSpec:
        """Token ids → penultimate hidden states (and the projected pooled state of the end-of-text token)."""
        hidden = TensorSpec(name="hidden_states", shape=("batch", self.max_tokens, self.hidden_size))
        pooled = TensorSpec(name="pooled", shape=("batch", self.projection_dim))
        return ComponentSpec(
            role=Role.TEXT_ENCODER,
            inputs=(TensorSpec(name="input_ids", shape=("batch", self.max_tokens), dtype=INT),),
            outputs=(hidden, pooled) if self.projection_dim else (hidden,),
        )


@dataclass(frozen=True, kw_only=True)
class VaeArchitecture:
    """The numbers of the VAE that its edge depends on."""

    latent_channels: int = 4
    scaling_factor: float = 0.13025
    downscale: int = 8

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a picture of `height` × `width` pixels."""
        return (self.latent_channels, height // self.downscale, width // self.downscale)

    def decoder(self) -> ComponentSpec:
        """Latents already divided by the scaling factor → picture in [-1, 1]."""
        return ComponentSpec(
            role=Role.VAE_DECODER,
            inputs=(TensorSpec(name="latents", shape=("batch", self.latent_channels, "height", "width")),),
            outputs=(TensorSpec(name="image", shape=("batch", 3, "image_height", "image_width")),),
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


@dataclass(frozen=True, kw_only=True)
class Models:
    """What an engine makes pictures with, wherever its weights lie."""

    family: str = "sdxl"
    denoisers: Mapping[str, ModelArchitecture]
    """`base`, `refiner` or both."""
    text_encoders: Mapping[str, TextEncoderArchitecture]
    vae: VaeArchitecture

    @property
    def native_size(self) -> int:
        """Width and height in pixels that the models were trained for."""
        first = self.denoisers["base"] if "base" in self.denoisers else next(iter(self.denoisers.values()))
        return first.unet.sample_size * self.vae.downscale
