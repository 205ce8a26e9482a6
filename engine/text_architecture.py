"""The numbers that shape a text encoder, and its edge."""

from dataclasses import dataclass, field
from enum import StrEnum

from .specs import INT, ComponentSpec, Role, TensorSpec


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
