"""Mixed precision: which layers get more bits so that a goal holds, at the least cost."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .formats import Format

_FREE = 1e-12
"""The price of a step that costs nothing."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One format that a layer may have."""

    format: Format
    error: float
    """What the layer adds to the component's squared relative error."""
    seconds: float
    """Of its products, in any unit that is the same for all."""
    bytes: float
    """Of its weight."""


def assign(options: Mapping[str, Sequence[Option]], *, goal: float, budget: float | None = None) -> dict[str, Option]:
    """A format for each layer: first the first of its options, then those that take most of the error for their price.

    Goes on until the sum of errors is at most `goal` or nothing is left that helps. The price is time, or with a
    `budget`, the most bytes that all layers together may have, bytes. Takes n log n steps for n options.
    """
    chosen = {layer: found[0] for layer, found in options.items() if found}
    error, size = sum(o.error for o in chosen.values()), sum(o.bytes for o in chosen.values())
    steps = [step for layer in chosen for step in _steps(layer, options[layer], chosen[layer], budget)]
    heapq.heapify(steps)
    while steps and error > goal:
        step = heapq.heappop(steps)
        old, new = chosen[step.layer], options[step.layer][step.place]
        if old is not step.before or (budget is not None and size + new.bytes - old.bytes > budget):
            continue
        error, size = error + new.error - old.error, size + new.bytes - old.bytes
        chosen[step.layer] = new
        for further in _steps(step.layer, options[step.layer], new, budget):
            heapq.heappush(steps, further)
    return chosen


@dataclass(frozen=True, order=True)
class _Step:
    """From one format of a layer to another that loses less; the best one is the smallest."""

    rate: float
    layer: str
    place: int
    before: Option = field(compare=False)


def _steps(layer: str, options: Sequence[Option], now: Option, budget: float | None) -> list[_Step]:
    found = []
    for place, option in enumerate(options):
        gain = now.error - option.error
        price = option.seconds - now.seconds if budget is None else option.bytes - now.bytes
        if gain > 0:
            found.append(_Step(rate=-gain / max(price, _FREE), layer=layer, place=place, before=now))
    return found
