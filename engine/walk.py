"""Going through the steps of a call: the caller's callback, and stopping early."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ending import Ended, Ending
from .errors import RequestError
from .generation import Generation, resume
from .sampling.denoise import Step, check_replacement
from .sampling.samplers.base import Array


@dataclass(frozen=True, kw_only=True)
class Walked:
    """Where the loop ended: its latents, how many evaluations were made, and whether it was stopped before the last.

    There are no latents where not even one evaluation was finished.
    """

    latents: Array | None
    steps: int
    interrupted: bool


def walk(generation: Generation, on_step: Callable[[Step], object] | None, ending: Ending) -> Walked:
    """Encode the prompts and go through the steps, asking `on_step` after each what to go on with, until `ending`.

    `on_step` answers as diffusers' `callback_on_step_end` does. The steps are closed whatever happens; one that was
    stopped in its middle does not count. Raises `RequestError` for another answer.
    """
    done, latents = 0, None
    try:
        with closing(generation.steps(generation.encode())) as steps:
            step = resume(steps)
            while isinstance(step, Step):
                done, latents = done + 1, step.latents
                replacement = None if on_step is None else replacement_in(on_step(step))
                if replacement is not None:
                    latents = check_replacement(replacement, step.latents)
                if ending.due():
                    return Walked(latents=latents, steps=done, interrupted=True)
                step = resume(steps, replacement)
    except Ended:
        return Walked(latents=latents, steps=done, interrupted=True)
    return Walked(latents=step, steps=done, interrupted=False)


def replacement_in(answer: Any) -> Array | None:
    """The latents in what a callback returned: None, or a mapping with the key `latents`, as in diffusers.

    What it was given may come back whole, `denoised` too, which says nothing then.
    """
    if answer is None:
        return None
    if not isinstance(answer, Mapping) or not set(answer) <= {"latents", "denoised"}:
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
