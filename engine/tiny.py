"""The numbers that shape a tiny decoder: TAESD's, which stands in for a VAE's decoder at a small part of its cost.

Source: madebyollin/taesd, which diffusers has as `AutoencoderTiny`. It is trained on the latents as a U-Net leaves
them, of unit variance: nothing is divided by the VAE's scaling factor.
"""

from dataclasses import dataclass

from .bounds import MOST_CHANNELS, Bounds
from .specs import ComponentSpec, Role, TensorSpec

TINY_DECODER = "tiny_decoder"
"""Its component's name."""
BOUNDS: Bounds = {
    "width": (1, MOST_CHANNELS),
    "blocks": (0, 64),
    "latent_channels": (1, 64),
    "out_channels": (3, 3),
    "scaling_factor": (1e-6, 1e6),
}


@dataclass(frozen=True, kw_only=True)
class TinyDecoderArchitecture:
    """The numbers of diffusers' `AutoencoderTiny` config that shape its decoder; the defaults are TAESD's."""

    width: int = 64
    """Channels, the same at every resolution."""
    blocks: tuple[int, ...] = (3, 3, 3, 1)
    """Blocks at each resolution, from the latents' up; the picture doubles between two."""
    latent_channels: int = 4
    out_channels: int = 3
    scaling_factor: float = 1.0

    @property
    def downscale(self) -> int:
        """Pixels of the picture per latent, along each side."""
        return 1 << (len(self.blocks) - 1)

    def decoder(self) -> ComponentSpec:
        """Latents divided by the scaling factor → picture in [-1, 1]."""
        return ComponentSpec(
            role=Role.TINY_DECODER,
            inputs=(TensorSpec(name="latents", shape=("batch", self.latent_channels, "height", "width")),),
            outputs=(TensorSpec(name="image", shape=("batch", self.out_channels, "image_height", "image_width")),),
        )
