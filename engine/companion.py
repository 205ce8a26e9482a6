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
from .specs import INT, SPARSE, ComponentSpec, Role, TensorSpec
from .t2i_adapter import T2IAdapterArchitecture
from .topology import Block, BlockKind
from .upscaler import UPSCALER, UpscalerArchitecture

RESIDUALS = "residuals"
"""What is added to a U-Net's skip connections, `residuals.0`, …, and to its middle, the last."""
CONTROL_SCALE = "scale"
"""The ControlNet's input by which all that it gives is multiplied: `[1]`."""
CONTROL_MODE = "control_mode"
"""Of a ControlNet-Union's hint encoder: the number of the hint's kind, `[batch]`."""
HINT_SCALE = "hint_scale"
"""The same encoder's, by which a hint counts among several: `[1]`."""
CONTROL_TYPE = "control_type"
"""Of a ControlNet-Union's conditioner: 1 for each kind of hint that there is, else 0, `[batch, kinds]`."""
CONTROLNET: Bounds = {
    **UNET,
    "hint_channels": (3, 3),
    "hint_widths": (1, MOST_CHANNELS),
    "control_types": (0, 64),
    "fuser_layers": (0, 16),
}
HINT_LEVELS = 4
"""Each but the first halves the picture, so that it ends at the latents' size."""


def is_companions(component: str) -> bool:
    """Whether a component, by its place in a folder, is none of an engine: adapters do not change those."""
    return component == UPSCALER or component.startswith(("control/", "image_prompt/", "t2i_adapter/"))


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
    control_types: int = field(default=0, metadata=SPARSE)
    """Kinds of hints that it tells apart (ControlNet-Union); 0: it was trained for one."""
    fuser_layers: int = field(default=0, metadata=SPARSE)
    """Of the small transformer that a union has for a hint as a whole."""

    @classmethod
    def of(
        cls, unet: UNetArchitecture, *, hint_widths: tuple[int, ...], control_types: int = 0, fuser_layers: int = 0
    ) -> Self:
        """The ControlNet of such a U-Net."""
        numbers = {field.name: getattr(unet, field.name) for field in fields(UNetArchitecture)}
        return cls(**numbers, hint_widths=hint_widths, control_types=control_types, fuser_layers=fuser_layers)

    def blocks(self) -> tuple[Block, ...]:
        """Those of the U-Net but for the way up."""
        return tuple(block for block in super().blocks() if not block.stage.startswith("up_blocks"))

    def conditioner(self) -> ComponentSpec:
        """As a U-Net's; a union is told the kinds of its hints too."""
        plain = super().conditioner()
        if not self.control_types:
            return plain
        kinds = TensorSpec(name=CONTROL_TYPE, shape=("batch", self.control_types))
        return ComponentSpec(role=plain.role, inputs=(*plain.inputs, kinds), outputs=plain.outputs)

    def hint_encoder(self) -> ComponentSpec:
        """A picture in [0, 1] → what is added behind the first convolution; it does not depend on the timestep."""
        image = TensorSpec(name="image", shape=("batch", self.hint_channels, "image_height", "image_width"))
        told = (TensorSpec(name=CONTROL_MODE, shape=("batch",), dtype=INT), TensorSpec(name=HINT_SCALE, shape=(1,)))
        return ComponentSpec(
            role=Role.HINT_ENCODER,
            inputs=(image, *(told if self.control_types else ())),
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

    controlnet: ControlNetArchitecture | None = field(default=None, metadata=SPARSE)
    ip_adapter: IPAdapterArchitecture | None = field(default=None, metadata=SPARSE)
    t2i_adapter: T2IAdapterArchitecture | None = field(default=None, metadata=SPARSE)
    upscaler: UpscalerArchitecture | None = field(default=None, metadata=SPARSE)

    @property
    def kind(self) -> str:
        """In words."""
        if self.upscaler is not None:
            return "an upscaler"
        if self.t2i_adapter is not None:
            return "a T2I adapter"
        if self.controlnet is not None and self.controlnet.control_types:
            return f"a ControlNet-Union of {self.controlnet.control_types} kinds of hints"
        return "a ControlNet" if self.ip_adapter is None else "an IP-Adapter"

    def components(self) -> dict[str, ComponentSpec]:
        """Place in the folder → its edge."""
        if self.upscaler is not None:
            return {UPSCALER: self.upscaler.component()}
        found = self.controlnet or self.ip_adapter or self.t2i_adapter
        return {} if found is None else found.components()
