"""Going through the steps of a call: the caller's callback, and stopping early."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import RequestError
from .generation import Steps, resume
from .sampling.denoise import Step, check_replacement
from .sampling.samplers.base import Array


@dataclass(frozen=True, kw_only=True)
class Walked:
    """Where the loop ended: its latents, how many evaluations were made, and whether it was stopped before the last."""

    latents: Array
    steps: int
    interrupted: bool


def walk(steps: Steps, on_step: Callable[[Step], object] | None, cancelled: Callable[[], bool]) -> Walked:
    """Go through `steps`, asking `on_step` after each what to go on with, until they end or `cancelled()`.

    `on_step` answers as diffusers' `callback_on_step_end` does. The steps are closed whatever happens. Raises
    `RequestError` for another answer.
    """
    done = 0
    with closing(steps):
        step = resume(steps)
        while isinstance(step, Step):
            done += 1
            replacement = None if on_step is None else replacement_in(on_step(step))
            if cancelled():
                latents = step.latents if replacement is None else check_replacement(replacement, step.latents)
                return Walked(latents=latents, steps=done, interrupted=True)
            step = resume(steps, replacement)
    return Walked(latents=step, steps=done, interrupted=False)


def replacement_in(answer: Any) -> Array | None:
    """The latents in what a callback returned: None, or a mapping with the key `latents`, as in diffusers."""
    if answer is None:
        return None
    if not isinstance(answer, Mapping) or not set(answer) <= {"latents"}:
        given = sorted(map(str, answer)) if isinstance(answer, Mapping) else type(answer).__name__
        raise RequestError(f"callback_on_step_end returned {given}; return None or {{'latents': array}}")
    if "latents" not in answer:
        return None
    try:
        latents = np.asarray(answer["latents"])
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or in bfloat16
        raise RequestError(f"callback_on_step_end returned latents that numpy cannot read ({error})") from error
    if latents.dtype.kind != "f":
        raise RequestError(f"callback_on_step_end returned latents of type {latents.dtype}; return floats")
    return latents
