"""What an engine does on cards of usual sizes: asked on any machine, before one is bought or an engine is copied.

Nothing is loaded, and no card is needed: components say what they take from their own programs and files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..architecture import Models
from ..errors import MemoryBudgetError
from ..runners.base import Runner
from ..specs import Role
from .plan import LEAST, MemoryPlan, make_plan
from .ranges import sides
from .sizes import GiB, format_bytes
from .workload import Workload

SIZES = (4 * GiB, 6 * GiB, 8 * GiB, 12 * GiB)
"""Of the cards that people have."""
TAKEN = 768 << 20
"""What is not ours of a card that also draws the screen: the driver's own, the desktop, a browser. An assumption, not
a measurement; where another GPU draws the screen nearly all of it is free. The driver's context in our own process is
not in it: the plan counts that (`CudaDevice.overhead`)."""
ASSUMPTION = (
    f"assumed: driver, desktop and browser take {format_bytes(TAKEN)} of a card; --device-memory says what yours has "
    "free"
)
STEP = 64
"""Sides that are tried for the largest picture are multiples of it."""
_NO_LIMIT = 1 << 60
MOST = 2048
"""Pixels along a side beyond which none is looked for: twice what SDXL was trained for."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card: what it is called, its memory in bytes (0: not known), and how many of them are free."""

    name: str
    memory: int
    free: int


@dataclass(frozen=True, kw_only=True)
class OnCard:
    """What becomes of a call on a card."""

    card: Card
    fits: bool
    unets: str
    """Where the U-Nets are from picture to picture: `together`, `in turns`, or of a single one `stays`, `reloaded`."""
    plan: MemoryPlan
    """Within what is free; where it does not fit, that of the least memory."""
    largest: int | None
    """Width and height in pixels of the largest square that fits, in steps of `STEP`; other shapes may have as many
    pixels. None: not even the smallest does."""


def usual_cards() -> tuple[Card, ...]:
    """Cards of the sizes that people have, with what is free on them by assumption."""
    return tuple(Card(name=f"{size // GiB} GB", memory=size, free=size - TAKEN) for size in SIZES)


def on_cards(
    models: Models, runners: Mapping[str, Runner], workload: Workload, cards: Sequence[Card]
) -> tuple[OnCard, ...]:
    """What becomes of a call on each of the cards. Raises `RequestError` for sizes that the engine does not take."""

    def within(size: int, workload: Workload) -> MemoryPlan | None:
        try:
            return make_plan(models, runners, workload, budget=size)
        except MemoryBudgetError:
            return None

    def square(side: int) -> Workload:
        return replace(workload, width=side, height=side)

    def unets(plan: MemoryPlan) -> str:
        found = [name for name in plan.footprints if runners[name].spec.role is Role.UNET]
        kept = plan.keep.issuperset(found)
        if len(found) > 1:
            return "together" if kept else "in turns"
        return "stays" if kept else "reloaded"

    low, high = sides(models, runners)
    tried = range(-(-low // STEP) * STEP, min(high, MOST) + 1, STEP)
    found = []
    for card in cards:
        plan = within(card.free, workload)
        shown = make_plan(models, runners, workload, budget=LEAST) if plan is None else plan
        largest = next((side for side in reversed(tried) if within(card.free, square(side))), None)
        found.append(OnCard(card=card, fits=plan is not None, unets=unets(shown), plan=shown, largest=largest))
    return tuple(found)


def unets_stay_from(models: Models, runners: Mapping[str, Runner], workload: Workload) -> int:
    """The least free memory of a card on which the call's U-Nets stay from picture to picture, in bytes.

    All else may be brought in when its turn comes, and a decoder go over bands of rows.
    """
    found = within = make_plan(models, runners, workload, budget=_NO_LIMIT)
    unets = {name for name in within.footprints if runners[name].spec.role is Role.UNET}
    while unets <= within.keep:
        found = within
        try:
            within = make_plan(models, runners, workload, budget=found.peak_bytes - 1)
        except MemoryBudgetError:
            break
    return found.peak_bytes


def format_cards(found: Sequence[OnCard]) -> str:
    """The answers as aligned text, one line a card."""
    width = max(len(one.card.name) for one in found)
    lines = [f"{'card':<{width}}{'free':>12}  fits  {'U-Nets':<9}{'peak':>12}  largest picture"]
    for one in found:
        size = "none" if one.largest is None else f"{one.largest}x{one.largest}"
        lines.append(
            f"{one.card.name:<{width}}{format_bytes(one.card.free):>12}  {'yes' if one.fits else 'no':<4}  "
            f"{one.unets:<9}{format_bytes(one.plan.peak_bytes):>12}  {size}"
        )
    return "\n".join(lines)


def cards_data(found: Sequence[OnCard]) -> list[dict[str, object]]:
    """The same for machines; `largest`: pixels of both sides."""
    return [
        {
            "name": one.card.name,
            "memory_bytes": one.card.memory or None,
            "free_bytes": one.card.free,
            "fits": one.fits,
            "unets": one.unets,
            "keep": sorted(one.plan.keep),
            "peak_bytes": one.plan.peak_bytes,
            "largest": one.largest,
        }
        for one in found
    ]
