"""ControlNets beside an engine."""

from ..companion import ControlNetArchitecture
from ..memory.controls import part
from ..runners.base import Runner
from .folders import Kind, Steering


class ControlNet(Steering[ControlNetArchitecture]):
    """One that is loaded beside an engine."""

    @property
    def hint_encoder(self) -> Runner:
        """Picture → hint."""
        return self.runners[part(self.name, "hint_encoder")]

    @property
    def conditioner(self) -> Runner:
        """Prompt and timesteps → its own keys, values and time vectors."""
        return self.runners[part(self.name, "conditioner")]

    @property
    def unet(self) -> Runner:
        """The part that runs in the loop."""
        return self.runners[part(self.name, "unet")]


CONTROLNETS = Kind(
    title="ControlNet",
    argument="controlnets",
    command="build-controlnet",
    of=lambda companion: companion.controlnet,
    part=part,
)
