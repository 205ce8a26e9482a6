"""The phases of what steers a picture by another one, before the base's part of the loop begins."""

from collections.abc import Mapping

from ..runners.base import Runner
from . import controls
from .phase import Phase
from .workload import Workload


def steering_bytes(runners: Mapping[str, Runner], workload: Workload) -> int:
    """What ControlNets and T2I adapters have made of their pictures once, until the base's part ends."""
    return controls.hint_bytes(runners, workload) + controls.feature_bytes(runners, workload)


def steering_phases(
    runners: Mapping[str, Runner], workload: Workload, held: int, constant: int
) -> tuple[list[Phase], int]:
    """The phases in running order, and the bytes of what stays constant in the loop then.

    `held`: what the pipeline holds meanwhile; `constant`: what else is constant.
    """
    phases = []
    for adapter in workload.adapters:
        name = controls.adapter_part(adapter, "encoder")
        phases.append(Phase(name=f"features {adapter}", component=name, held_bytes=held))
    for control in workload.controls:
        name = controls.part(control, "hint_encoder")
        phases.append(Phase(name=f"hint {control}", component=name, held_bytes=held))
    for control in workload.controls:
        name = controls.part(control, "conditioner")
        constant += controls.conditioning_bytes(runners[name].spec, workload)
        phases.append(Phase(name=f"condition {control}", component=name, held_bytes=held, constant_bytes=constant))
    if workload.image_prompts:
        constant += controls.image_prompt_bytes(runners, workload)
        for part in ("encoder", "projection"):
            name = f"{controls.IMAGE_PROMPT}/{part}"
            phases.append(Phase(name=f"picture {part}", component=name, held_bytes=held))
    return phases, constant
