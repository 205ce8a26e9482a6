"""Progress of a whole build: stages in bytes and steps, and how much of all of them together is done."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from torch import Tensor

    from .checkpoint.weights import Weights

# Seconds for a byte of a checkpoint's weights, from full-size builds on two cores. Only their proportions count.
_LOWER = 3e-8
# The same for a byte of a U-Net's weights in one step at 512 × 512: unquantized, and as built.
_REFERENCE_STEP = 4e-9
_CHECK_STEP = 1e-9
_PIXELS = 512 * 512


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a stage is expected to take: so many units, each of about so many seconds."""

    total: float
    seconds: float


def expected(*, weights: int, unet: int, steps: int, pixels: int, gated: bool) -> dict[str, Share]:
    """The stages of a build of `weights` bytes; `unet`: bytes of a mean U-Net, `steps` and `pixels`: the reference's.

    `gated`: whether the engine runs on this machine.
    """
    step = unet * pixels / _PIXELS
    shares = {
        "lower": Share(total=weights, seconds=_LOWER),
        "reference": Share(total=steps, seconds=_REFERENCE_STEP * step),
        "check: pictures": Share(total=steps, seconds=_CHECK_STEP * step),
    }
    return {name: share for name, share in shares.items() if gated or not name.startswith("check")}


@contextmanager
def whole(progress: Progress, shares: Mapping[str, Share]) -> Iterator[Progress]:
    """Yields a progress that hands every event on, and after it, when it has grown, the share of the stage `build`.

    That is in percent, so that its rate tells the time that is left over all stages. What a stage finds done already is
    not in its total, and then not in the whole either.
    """
    began, percent = time.monotonic(), 0
    known, done = dict(shares), dict.fromkeys(shares, 0.0)

    def tell(*, end: bool = False) -> None:
        seconds = time.monotonic() - began
        progress(ProgressEvent(stage="build", step=percent, total=100, unit="%", seconds=seconds, done=end))

    def forward(event: ProgressEvent) -> None:
        nonlocal percent
        progress(event)
        if event.stage not in known:
            return
        if event.total is not None:
            known[event.stage] = replace(known[event.stage], total=event.total)
        total = known[event.stage].total
        done[event.stage] = total if event.done else min(total, event.step)
        complete = sum(share.total * share.seconds for share in known.values())
        spent = sum(done[name] * share.seconds for name, share in known.items())
        now = min(99, int(100 * spent / complete)) if complete else 0
        if now > percent:
            percent = now
            tell()

    tell()
    try:
        yield forward
        percent = 100
    finally:
        tell(end=True)


def steps_of(advance: Callable[..., None], *, count: bool = True) -> Progress:
    """A pipeline's progress as that of one stage: its phases are the detail and, with `count`, its steps the units."""
    before, phase = 0, ""

    def forward(event: ProgressEvent) -> None:
        nonlocal before, phase
        made = event.step - before if count and event.stage == "denoise" else 0
        if event.stage == "denoise":
            before = 0 if event.done else event.step
        if made or event.stage != phase:
            phase = event.stage
            advance(made, detail=phase)

    return forward


class Counted:
    """Weights whose bytes are told to `advance`, each tensor's once: a share when it is read, the rest by `finish`."""

    def __init__(self, weights: "Weights", advance: Callable[[int], None], *, share: float = 1.0) -> None:
        self._weights = weights
        self._advance = advance
        self._share = share
        self._left = {name: weights.nbytes(name) for name in weights}
        self._owed = 0

    def tensor(self, name: str) -> "Tensor":
        """See `Weights.tensor`."""
        tensor = self._weights.tensor(name)
        size = self._left.pop(name, 0)
        told = int(self._share * size)
        self._owed += size - told
        self._advance(told)
        return tensor

    def finish(self) -> None:
        """What is done with the weights behind their reading is done."""
        owed, self._owed = self._owed, 0
        self._advance(owed)
