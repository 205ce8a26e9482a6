"""T2I adapters as numbers (Mou et al. 2023, 2302.08453): a small network that makes features of a picture, once.

They are added to what a U-Net carries down, behind each of its levels and behind its middle, unlike what a ControlNet
gives, which its way up alone reads. diffusers' `down_intrablock_additional_residuals`.
"""

from dataclasses import dataclass

from .architecture import UNetArchitecture
from .bounds import MOST_CHANNELS, Bounds
from .specs import ComponentSpec, Role, TensorSpec
from .topology import BlockKind

FEATURES = "adapter_features"
"""What is added to a U-Net's stream, `adapter_features.0`, …: in running order, its middle last."""
T2I_ADAPTER: Bounds = {"hint_channels": (1, 3), "widths": (1, MOST_CHANNELS), "layers": (1, 16)}
CUT = 16
"""Pixels along each side of the squares that a picture is cut into first: adapters for SDXL have these."""
_HALVED_AT = 2
"""The block of an adapter for SDXL before which its features are halved, the only one."""
_LATENT = 8
"""Pixels of a latent along each side."""
Place = tuple[int, int]
"""Channels, and how often latents are halved for its size."""


@dataclass(frozen=True, kw_only=True)
class T2IAdapterArchitecture:
    """The numbers of diffusers' `T2IAdapter` config that shape one of the kind `full_adapter_xl`."""

    hint_channels: int = 3
    """1 for an adapter of sketches in grey."""
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    """Of each block."""

    def places(self) -> tuple[Place, ...]:
        """What each of its features is like."""
        return tuple((width, 1 + (index >= _HALVED_AT)) for index, width in enumerate(self.widths))

    def encoder(self) -> ComponentSpec:
        """A picture in [0, 1], whose sides are multiples of `CUT` → features."""
        shape = ("batch", self.hint_channels, "image_height", "image_width")
        return ComponentSpec(
            role=Role.HINT_ENCODER,
            inputs=(TensorSpec(name="image", shape=shape),),
            outputs=tuple(
                TensorSpec(name=f"{FEATURES}.{index}", shape=("batch", channels, *_halved(halvings)))
                for index, (channels, halvings) in enumerate(self.places())
            ),
        )

    def components(self) -> dict[str, ComponentSpec]:
        """Place in the adapter's folder → its edge."""
        return {"t2i_adapter/encoder": self.encoder()}

    def misfits(self, unet: UNetArchitecture) -> str | None:
        """Why it cannot be used with such a U-Net; None if it can. One may have no features for the middle."""
        own, taken = self.places(), feature_places(unet)
        if own in (taken, taken[:-1]):
            return None
        return f"it adds {_listed(own)}, the U-Net takes {_listed(taken)}"


def feature_places(unet: UNetArchitecture) -> tuple[Place, ...]:
    """Where a U-Net takes features: behind each stage of its way down, and behind its middle.

    Behind a stage with attention before its size changes, behind another after that. diffusers' rule.
    """
    stages: dict[str, Place] = {}
    attentive: set[str] = set()
    for block in unet.blocks():
        if not block.stage.startswith("down_blocks"):
            continue
        if block.kind is BlockKind.TRANSFORMER:
            attentive.add(block.stage)
        if block.kind is BlockKind.DOWNSAMPLER and block.stage not in attentive:
            stages[block.stage] = (block.out_channels, block.level + 1)
        elif block.kind is not BlockKind.DOWNSAMPLER:
            stages[block.stage] = (block.out_channels, block.level)
    return (*stages.values(), (unet.block_out_channels[-1], len(unet.block_out_channels) - 1))


def _halved(times: int) -> tuple[str, str]:
    return f"height/{1 << times}", f"width/{1 << times}"


def _listed(places: tuple[Place, ...]) -> str:
    return ", ".join(f"{channels} channels at 1/{_LATENT << halvings}" for channels, halvings in places) or "nothing"
