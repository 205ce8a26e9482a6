"""Which calls are timed: one forward of a network, or as many as a picture takes."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal

Name = Literal["base", "refiner", "vae"]
STEPS: Final = 30
"""Of a loop; a single forward has the timestep in the middle of as many."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table: a network at a picture's size in pixels; `batch` rows of latents, two a picture's guidance.

    `steps`: forwards in a row, each on what the one before it left.
    """

    name: str
    network: Name
    size: int
    batch: int
    steps: int = 1


CASES: Final = (
    Case(name="unet_base_1024_b2", network="base", size=1024, batch=2),
    Case(name="loop_1024_30", network="base", size=1024, batch=2, steps=STEPS),
    Case(name="unet_base_1024_b8", network="base", size=1024, batch=8),
    Case(name="unet_base_512_b2", network="base", size=512, batch=2),
    Case(name="unet_refiner_1024_b2", network="refiner", size=1024, batch=2),
    Case(name="vae_1024_b1", network="vae", size=1024, batch=1),
)


def cases(names: Collection[str] = (), *, tiny: bool = False) -> list[Case]:
    """Those of that name, or all; `tiny`: of pictures that a processor is done with at once."""
    found = [case for case in CASES if not names or case.name in names]
    if not tiny:
        return found
    return [replace(case, size=case.size // 16, steps=min(case.steps, 3)) for case in found]
