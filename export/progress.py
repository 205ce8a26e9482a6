"""Progress of a whole build: stages in bytes and steps, and what all of them together come to."""

from collections.abc import Callable

from ..engine.progress import Progress, ProgressEvent


def steps_of(advance: Callable[..., None], *, count: bool = True) -> Progress:
    """A pipeline's progress as that of one stage: its phases are the detail and, with `count`, its steps the units."""
    before = 0

    def forward(event: ProgressEvent) -> None:
        nonlocal before
        made = event.step - before if count and event.stage == "denoise" else 0
        if event.stage == "denoise":
            before = 0 if event.done else event.step
        advance(made, detail=event.stage)

    return forward
