"""diffusers' scheduler config of a folder → the noise levels that its model was trained on."""

from collections.abc import Mapping

from ...engine.errors import IncompatibleError
from ...engine.sampling.levels.config import SchedulerConfig
from .configuration import ALLOWED, JsonFile

KNOWN = tuple(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSDE"),
        *("DPMSolverSinglestep", "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete"),
        *("KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM", "SASolver", "TCD", "UniPCMultistep"),
    )
)
"""Classes that walk the same trained levels: which one a folder names is its author's choice of a sampler."""
OTHERS: Mapping[str, str] = {
    "EDM": "EDM noise levels (CosXL, Playground v2.5)",
    "Flow": "flow matching",
}
"""What a class is for whose name begins so."""


def scheduler_config(file: JsonFile, listed: object) -> SchedulerConfig:
    """The noise levels of a folder; `listed` is what its model_index.json says of the scheduler.

    Raises `IncompatibleError` for a scheduler whose models were trained on other levels.
    """
    named = listed[1] if isinstance(listed, list) and len(listed) == 2 else None
    for name in (file.data.get("_class_name"), named):
        if name is not None and name not in KNOWN:
            what = next((w for part, w in OTHERS.items() if str(name).startswith(part)), "noise levels unknown here")
            raise IncompatibleError(
                f"{file.path}: the scheduler is {str(name)[:80]!r}, which is for {what}; {', '.join(KNOWN)} are "
                f"allowed. {ALLOWED}"
            )
    return SchedulerConfig.of(file.data)
