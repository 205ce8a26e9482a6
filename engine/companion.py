"""Networks that are built beside an engine and used with it: as numbers, and the edge of each of their components.

A ControlNet is the way down of a U-Net and its middle, which reads a picture besides the latents and gives what is
added to the U-Net's own skip connections (Zhang et al. 2023, 2302.05543).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from .architecture import UNetArchitecture
from .bounds import MOST_CHANNELS, UNET, Bounds
from .image_prompt import IPAdapterArchitecture
from .specs import ComponentSpec, Role, TensorSpec
from .topology import Block, BlockKind
from .upscaler import UPSCALER, UpscalerArchitecture

RESIDUALS = "residuals"
"""What is added to a U-Net's skip connections, `residuals.0`, …, and to its middle, the last."""
CONTROL_SCALE = "scale"
"""The ControlNet's input by which all that it gives is multiplied: `[1]`."""
CONTROLNET: Bounds = {**UNET, "hint_channels": (3, 3), "hint_widths": (1, MOST_CHANNELS)}
HINT_LEVELS = 4
"""Each but the first halves the picture, so that it ends at the latents' size."""


def is_companions(component: str) -> bool:
    """Whether a component, by its place in a folder, is none of an engine: adapters do not change those."""
    return component == UPSCALER or component.startswith(("control/", "image_prompt/"))


def residuals(architecture: UNetArchitecture) -> tuple[TensorSpec, ...]:
    """What may be added to a U-Net's skip connections, in running order, and to its middle, last.

    Named `residuals.<i>`; a level's height is `height/2`, `height/4`, …, rounded up.
    """
    places = [(architecture.block_out_channels[0], 0)]
    for block in architecture.blocks():
        if block.stage.startswith("down_blocks"):
            if block.kind is BlockKind.RESNET:
                places.append((block.out_channels, block.level))
            if block.kind is BlockKind.DOWNSAMPLER:
                places.append((block.out_channels, block.level + 1))
    places.append((architecture.block_out_channels[-1], len(architecture.block_out_channels) - 1))
    return tuple(
        TensorSpec(
            name=f"{RESIDUALS}.{i}", shape=("batch", channels, *(_at(side, level) for side in ("height", "width")))
        )
        for i, (channels, level) in enumerate(places)
    )


def _at(side: str, level: int) -> str:
    return f"{side}/{1 << level}" if level else side


@dataclass(frozen=True, kw_only=True)
class ControlNetArchitecture(UNetArchitecture):
    """The numbers of diffusers' `ControlNetModel` config that shape one of the SDXL family.

    Those of the U-Net whose way down it copies, and of the small network that brings a picture to the latents' size.
    """

    hint_channels: int = 3
    hint_widths: tuple[int, ...] = (16, 32, 96, 256)

    @classmethod
    def of(cls, unet: UNetArchitecture, *, hint_widths: tuple[int, ...]) -> Self:
        """The ControlNet of such a U-Net."""
        numbers = {field.name: getattr(unet, field.name) for field in fields(UNetArchitecture)}
        return cls(**numbers, hint_widths=hint_widths)

    def blocks(self) -> tuple[Block, ...]:
        """Those of the U-Net but for the way up."""
        return tuple(block for block in super().blocks() if not block.stage.startswith("up_blocks"))

    def hint_encoder(self) -> ComponentSpec:
        """A picture in [0, 1] → what is added behind the first convolution; it does not depend on the timestep."""
        return ComponentSpec(
            role=Role.HINT_ENCODER,
            inputs=(TensorSpec(name="image", shape=("batch", self.hint_channels, "image_height", "image_width")),),
            outputs=(self._hint(),),
        )

    def network(self) -> ComponentSpec:
        """Scaled latents, one step's time vectors, hint and keys/values → what is added to the U-Net's skips."""
        latents, time_vectors, *key_values = self.unet().inputs
        return ComponentSpec(
            role=Role.UNET,
            inputs=(latents, time_vectors, self._hint(), TensorSpec(name=CONTROL_SCALE, shape=(1,)), *key_values),
            outputs=residuals(self),
        )

    def components(self) -> dict[str, ComponentSpec]:
        """Place in the ControlNet's folder → its edge."""
        return {
            "control/hint_encoder": self.hint_encoder(),
            "control/conditioner": self.conditioner(),
            "control/unet": self.network(),
        }

    def misfits(self, unet: UNetArchitecture) -> str | None:
        """Why it cannot be used with such a U-Net; None if it can."""
        told: Mapping[str, tuple[object, object]] = {
            "takes {} channels of latents": (self.in_channels, unet.in_channels),
            "reads text of {} numbers": (self.cross_attention_dim, unet.cross_attention_dim),
            "reads pooled text of {} numbers": (self.pooled_dim, unet.pooled_dim),
            "is told {} numbers of sizes": (self.time_ids, unet.time_ids),
        }
        for words, (own, other) in told.items():
            if own != other:
                return f"it {words.format(own)}, the U-Net {other}"
        own_widths, widths = ([tensor.shape[1] for tensor in residuals(a)] for a in (self, unet))
        return None if own_widths == widths else f"its levels are {own_widths} wide, the U-Net's {widths}"

    def _hint(self) -> TensorSpec:
        return TensorSpec(name="hint", shape=("batch", self.block_out_channels[0], "height", "width"))


@dataclass(frozen=True, kw_only=True)
class Companion:
    """What a folder holds that is no engine of its own: one of these."""

    controlnet: ControlNetArchitecture | None = field(default=None, metadata={"sparse": True})
    ip_adapter: IPAdapterArchitecture | None = field(default=None, metadata={"sparse": True})
    upscaler: UpscalerArchitecture | None = field(default=None, metadata={"sparse": True})

    @property
    def kind(self) -> str:
        """In words."""
        if self.upscaler is not None:
            return "an upscaler"
        return "a ControlNet" if self.ip_adapter is None else "an IP-Adapter"

    def components(self) -> dict[str, ComponentSpec]:
        """Place in the folder → its edge."""
        if self.upscaler is not None:
            return {UPSCALER: self.upscaler.component()}
        found = self.controlnet or self.ip_adapter
        return {} if found is None else found.components()
