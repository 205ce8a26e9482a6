"""What pictures are made."""

from dataclasses import dataclass
from typing import Final

PROMPTS: Final = (
    "a red apple on a blue background",
    "a lighthouse at dusk, oil painting",
    "an astronaut riding a horse through a field of poppies",
    "a small robot reading a newspaper in a café",
    "snow on the roofs of an old town at night",
)
"""Another one for every run, so that each encodes its text and makes its conditions."""
HAND_OVER: Final = 0.8


@dataclass(frozen=True, kw_only=True)
class Case:
    """`side` pixels; `images` of one prompt at once; `refined`: the refiner makes the last fifth."""

    name: str
    side: int
    steps: int
    guidance: float
    images: int = 1
    refined: bool = False


CASES: Final = (
    Case(name="picture_1024_30", side=1024, steps=30, guidance=5.0),
    Case(name="picture_1024_30_b4", side=1024, steps=30, guidance=5.0, images=4),
    Case(name="refined_1024_30", side=1024, steps=30, guidance=5.0, refined=True),
    Case(name="refined_1024_30_b4", side=1024, steps=30, guidance=5.0, images=4, refined=True),
    Case(name="picture_1024_4", side=1024, steps=4, guidance=1.0),
    Case(name="picture_1024_4_b4", side=1024, steps=4, guidance=1.0, images=4),
    Case(name="picture_512_4", side=512, steps=4, guidance=1.0),
)
TINY: Final = (
    Case(name="picture_64_2", side=64, steps=2, guidance=5.0),
    Case(name="refined_64_5_b2", side=64, steps=5, guidance=5.0, images=2, refined=True),
)
"""For a run without a GPU, on the miniature."""


def prompt(run: int) -> str:
    """That of the run of that number."""
    return PROMPTS[run % len(PROMPTS)]


def chosen(names: list[str], *, tiny: bool) -> tuple[Case, ...]:
    """Those of these names, or all."""
    return tuple(case for case in (TINY if tiny else CASES) if not names or case.name in names)
