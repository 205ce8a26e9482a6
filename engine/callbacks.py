"""What `callback_on_step_end` may answer."""

from collections.abc import Mapping

import numpy as np

from .errors import RequestError
from .sampling.samplers.base import Array


def replacement(answer: object) -> Array | None:
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
