"""The miniature's architecture: SDXL's, with every width and depth made small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HEAD_DIM: Final = 64  # as in every attention layer of SDXL


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """One CLIP text encoder. The layer before the last is the one that the U-Nets read."""

    width: int
    layers: int
    activation: str


@dataclass(frozen=True, kw_only=True)
class UNetShape:
    """One U-Net: channels per level, transformer blocks per level (0 where a level has no attention)."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    layers_per_block: int = 1
    norm_groups: int = 16


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """Everything that fixes the shape of the pair."""

    vocabulary_size: int = 2826
    text: TextShape = TextShape(width=128, layers=2, activation="quick_gelu")
    text_2: TextShape = TextShape(width=192, layers=3, activation="gelu")
    base: UNetShape = UNetShape(channels=(64, 128, 192), depths=(0, 1, 2))
    refiner: UNetShape = UNetShape(channels=(64, 128, 192), depths=(0, 1, 0))
    size_embedding: int = 32


def text_encoder(model: Miniature) -> CLIPTextModel:
    """The first encoder: its penultimate states are the first half of the context."""
    return CLIPTextModel(_text_config(model.text, model, pad=model.vocabulary_size - 1))


def text_encoder_2(model: Miniature) -> CLIPTextModelWithProjection:
    """The second encoder: penultimate states, and the pooled vector that joins the time embedding."""
    return CLIPTextModelWithProjection(_text_config(model.text_2, model, pad=0))


def base_unet(model: Miniature, resolution: int) -> UNet2DConditionModel:
    """The base: reads both encoders and six size ids."""
    context = model.text.width + model.text_2.width
    return _unet(model.base, model, context=context, ids=6, resolution=resolution)


def refiner_unet(model: Miniature, resolution: int) -> UNet2DConditionModel:
    """The refiner: reads the second encoder and five ids, the fifth the aesthetic score; no attention at its ends."""
    return _unet(model.refiner, model, context=model.text_2.width, ids=5, resolution=resolution)


def scheduler() -> EulerDiscreteScheduler:
    """SDXL's noise schedule."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        interpolation_type="linear",
        timestep_spacing="leading",
        steps_offset=1,
        use_karras_sigmas=False,
    )


def parameter_count(*modules: nn.Module) -> int:
    """Parameters of all modules together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _text_config(shape: TextShape, model: Miniature, *, pad: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=model.vocabulary_size,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.width // HEAD_DIM),
        max_position_embeddings=77,
        hidden_act=shape.activation,
        projection_dim=model.text_2.width,
        bos_token_id=model.vocabulary_size - 2,
        eos_token_id=model.vocabulary_size - 1,
        pad_token_id=pad,
    )


def _unet(shape: UNetShape, model: Miniature, *, context: int, ids: int, resolution: int) -> UNet2DConditionModel:
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in shape.depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(shape.depths)]
    deepest = max(shape.depths)
    arguments: dict[str, Any] = {
        "sample_size": resolution // 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "block_out_channels": shape.channels,
        "layers_per_block": shape.layers_per_block,
        # Levels without attention still need a number here; the middle block takes the last one.
        "transformer_layers_per_block": tuple(depth or deepest for depth in shape.depths[1:]),
        "attention_head_dim": tuple(max(1, width // HEAD_DIM) for width in shape.channels),
        "cross_attention_dim": context,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": model.size_embedding,
        "projection_class_embeddings_input_dim": model.text_2.width + ids * model.size_embedding,
        "norm_num_groups": shape.norm_groups,
    }
    arguments["transformer_layers_per_block"] = (1, *arguments["transformer_layers_per_block"])
    return UNet2DConditionModel(**arguments)
