"""IP-Adapter as numbers: a picture as a prompt (Ye et al. 2023, 2308.06721), and the edge of each of its components.

A CLIP vision encoder makes features of a picture, a projection makes tokens of them, and of those keys and values for
every cross-attention of a U-Net: a second attention, whose result is added to that of the prompt.
"""

from dataclasses import dataclass

from .architecture import Activation, UNetArchitecture
from .bounds import MOST_CHANNELS, Bounds
from .specs import ComponentSpec, Role, TensorSpec

IMAGE_KEY_VALUES = "image_key_values"
IMAGE_TOKENS = "image_tokens"
"""The length of a picture's keys and values, a symbol of its own: there may be none."""
VISION: Bounds = {
    "hidden_size": (1, MOST_CHANNELS),
    "intermediate_size": (1, MOST_CHANNELS),
    "num_hidden_layers": (2, 64),
    "num_attention_heads": (1, 1024),
    "layer_norm_eps": (1e-12, 1.0),
    "image_size": (8, 1024),
    "patch_size": (1, 128),
    "projection_dim": (1, MOST_CHANNELS),
}
IMAGE_PROMPT: Bounds = {
    "cross_attention_dim": (1, MOST_CHANNELS),
    "tokens": (1, 1024),
    "widths": (1, MOST_CHANNELS),
    "resampler_width": (0, MOST_CHANNELS),
    "resampler_heads": (0, 1024),
    "resampler_depth": (0, 64),
    "resampler_inner": (0, MOST_CHANNELS),
}


@dataclass(frozen=True, kw_only=True)
class VisionArchitecture:
    """The numbers of transformers' `CLIPVisionConfig` that shape an image encoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: Activation
    image_size: int
    patch_size: int
    projection_dim: int
    layer_norm_eps: float = 1e-5

    @property
    def positions(self) -> int:
        """Patches, and one for the whole."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True, kw_only=True)
class IPAdapterArchitecture:
    """An IP-Adapter with the image encoder that it was trained with."""

    vision: VisionArchitecture
    cross_attention_dim: int
    tokens: int
    """That one picture is."""
    widths: tuple[int, ...]
    """Channels of every cross-attention of the U-Net, in running order."""
    resampler_width: int = 0
    """Of the attention that makes tokens of the encoder's hidden states (Plus); 0 where they come of its projection."""
    resampler_heads: int = 0
    resampler_depth: int = 0
    resampler_inner: int = 0

    @property
    def plus(self) -> bool:
        """Whether it looks at all patches."""
        return self.resampler_width > 0

    def features(self) -> TensorSpec:
        """What the image encoder gives."""
        if self.plus:
            return TensorSpec(name="features", shape=("batch", self.vision.positions, self.vision.hidden_size))
        return TensorSpec(name="features", shape=("batch", self.vision.projection_dim))

    def encoder(self) -> ComponentSpec:
        """A picture as CLIP takes it → features."""
        side = self.vision.image_size
        return ComponentSpec(
            role=Role.IMAGE_ENCODER,
            inputs=(TensorSpec(name="pixels", shape=("batch", 3, side, side)),),
            outputs=(self.features(),),
        )

    def projection(self) -> ComponentSpec:
        """Features → keys and values."""
        return ComponentSpec(
            role=Role.IMAGE_PROJECTION,
            inputs=(self.features(),),
            outputs=tuple(
                TensorSpec(name=f"{IMAGE_KEY_VALUES}.{i}.{part}", shape=("batch", self.tokens, width))
                for i, width in enumerate(self.widths)
                for part in ("key", "value")
            ),
        )

    def components(self) -> dict[str, ComponentSpec]:
        """Place in the adapter's folder → its edge."""
        return {"image_prompt/encoder": self.encoder(), "image_prompt/projection": self.projection()}

    def misfits(self, unet: UNetArchitecture) -> str | None:
        """Why it cannot be used with such a U-Net; None if it can."""
        own, other = self.widths, unet.attention_widths()
        if self.cross_attention_dim != unet.cross_attention_dim:
            return f"its tokens have {self.cross_attention_dim} numbers, the U-Net reads {unet.cross_attention_dim}"
        if own == other:
            return None
        return (
            f"it is for {len(own)} attentions of {_range(own)} channels, the U-Net has {len(other)} of {_range(other)}"
        )


def _range(widths: tuple[int, ...]) -> str:
    return f"{min(widths)} to {max(widths)}" if widths else "no"
