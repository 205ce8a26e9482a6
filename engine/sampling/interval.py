"""Guidance between two noise levels: at which evaluations the negative prompt counts.

Source: Kynkäänniemi et al. 2024, "Applying guidance in a limited interval improves sample and distribution quality"
(2404.07724). Early, guidance narrows what can become of the noise; late, it changes little.
"""

from .samplers.base import Schedule


def guided_evaluations(part: Schedule, start: float, end: float) -> tuple[bool, ...]:
    """(evaluations of this part,) whether each lies between the shares `start` and `end` of the trained timesteps.

    Shares, not levels, so that it means the same as `denoising_end` and whatever the schedule: the timesteps below
    T - start·T, down to T - end·T. 0 and 1 are all of them.
    """
    trained = part.num_train_timesteps
    highest, lowest = round(trained - start * trained), round(trained - end * trained)
    return tuple(lowest <= part.timesteps[evaluation] < max(highest, 1) for evaluation in part.evaluations)
