"""What whole U-Nets should take on GPUs that are not here, ours and in float16, as records. No measurement.

Ours are the calls of a real build, planned for each card and timed by `waves`; float16 is `float16`. Where a prediction
could be held to a measurement, `held` says by how much it is off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Final

from pocketxl.kernels.sdxl_layers import UNetName

from ..report import Record
from .float16 import float16_seconds
from .gpus import Gpu
from .held import Held
from .unet import RECIPE, unet_plans
from .waves import plan_seconds

SIZE: Final = 1024
BATCHES: Final = (1, 2)
MODELS: Final[tuple[UNetName, ...]] = ("base", "refiner")
SYSTEM: Final = "prediction-"
"""Every system's name begins so."""
OURS: Final = f"{SYSTEM}pocketxl-{RECIPE}"
FOUR_BITS: Final = "int4"
"""The recipe of the cards with least memory."""
NOTES: Final = (
    "no measurement: seconds of whole forwards by a model of waves of tiles, on vendors' peaks and stated shares",
    "held_ cases are predictions of what was measured on an H100, and their relative errors (negative: it took longer "
    "than predicted); held_triton_ cases are kernels of the first run, which GeForce cards run too; of Hopper's own "
    "kernels the times of tiles were measured, so that their errors, and those of today's forwards, are those of a fit",
    "float16 is a tuned program's: additions, biases and SiLUs fused, keys and values of the prompt outside the loop",
)


def forward_seconds(
    model: UNetName, gpu: Gpu, *, size: int = SIZE, batch: int = 1, recipe: str = RECIPE
) -> dict[str, float]:
    """Predicted seconds of one forward with our kernels, by op. `batch`: latents, 2 for a picture with guidance."""
    found: defaultdict[str, float] = defaultdict(float)
    for made in unet_plans(model, gpu.architecture, size=size, batch=batch, recipe=recipe):
        found[made.op] += plan_seconds(made, gpu)
    return dict(found)


def predict(gpu: Gpu, *, size: int = SIZE) -> Iterator[Record]:
    """Every prediction for one GPU: forwards of both models, one and two latents, whole and in parts, and ratios."""
    for model in MODELS:
        for batch in BATCHES:
            yield from _forward(gpu, model, size, batch)


def errors(found: Sequence[Held]) -> Iterator[Record]:
    """What was predicted of each measured thing, and by how much it is off; then, for each group, on the whole."""
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for one in found:
        system = f"{SYSTEM}float16" if one.group == "float16" else OURS
        case = f"held_{one.group}_{one.case}"
        yield Record(case=case, system=system, metric="predicted_seconds", value=one.predicted, unit="s")
        yield Record(case=case, system=system, metric="relative_error", value=one.error, unit="1")
        groups[one.group].append(one.error)
    for group, of_group in groups.items():
        system = f"{SYSTEM}float16" if group == "float16" else OURS
        mean_error, most = mean(of_group), max(of_group, key=abs)
        yield Record(case=f"held_{group}", system=system, metric="mean_relative_error", value=mean_error, unit="1")
        yield Record(case=f"held_{group}", system=system, metric="largest_relative_error", value=most, unit="1")


def _forward(gpu: Gpu, model: UNetName, size: int, batch: int) -> Iterator[Record]:
    case = f"{gpu.name}_{model}_{size}_b{batch}"
    ours: dict[str, Mapping[str, float]] = {
        f"{SYSTEM}pocketxl-{recipe}": forward_seconds(model, gpu, size=size, batch=batch, recipe=recipe)
        for recipe in (RECIPE, FOUR_BITS)
    }
    systems = {
        **ours,
        f"{SYSTEM}float16": float16_seconds(model, gpu, size=size, batch=batch),
    }
    if gpu.float16_short > gpu.float16:
        short = float16_seconds(model, gpu, size=size, batch=batch, short_sums=True)
        systems[f"{SYSTEM}float16-short-sums"] = short
    wholes = {system: sum(parts.values()) for system, parts in systems.items()}
    for system, parts in systems.items():
        yield _seconds(case, system, wholes[system])
        for part, seconds in parts.items():
            yield _seconds(f"{case}_{part}", system, seconds)
        if system not in ours:
            metric = f"predicted_speedup_over_{system.removeprefix(SYSTEM)}"
            for one in ours:
                yield Record(case=case, system=one, metric=metric, value=wholes[system] / wholes[one], unit="1")


def _seconds(case: str, system: str, value: float) -> Record:
    return Record(case=case, system=system, metric="predicted_seconds", value=value, unit="s")
