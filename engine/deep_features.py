"""Deep features that stay from one evaluation of a U-Net to the next: DeepCache, Ma et al. 2023 (2312.00858).

What a U-Net's lower levels make of the latents changes little from one noise level to the next. At every so many
evaluations the whole network runs and also gives what enters the last level of its way up; between them its outermost
level alone runs, on new latents and that feature.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .runners.base import Held, Runner, Values, call, check_outputs

FEATURE = "deep_feature"
"""An output of the whole network, and an input of the shallow one; `[rows, channels, h, w]`."""
Place = tuple[int, int]
"""A picture of the call, and which of its calls of the U-Net: the prompt's, or its negative's."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Kept:
    feature: npt.NDArray[np.float32]
    window: int
    made_of: object


class DeepFeatures:
    """Those of one model's part of the loop, for all pictures of a call.

    Evaluations are counted from the part's first, which is whole. A feature holds until the next whole evaluation, and
    for what it was made of alone: where another text begins, guidance sets in or a ControlNet comes or goes, that
    picture's side is asked as a whole, and its feature serves what is left until then.
    """

    def __init__(self, interval: int) -> None:
        """`interval`: every so many evaluations are whole; 1: all of them are, and nothing is kept."""
        self._interval = interval
        self._kept: dict[Place, _Kept] = {}

    def drop(self) -> None:
        """Forget all: the latents are no longer those that the last evaluation led to."""
        self._kept.clear()

    def ask(
        self, runner: Runner, inputs: Values, held: Held, *, place: Place, evaluation: int, made_of: object
    ) -> npt.NDArray[np.float32]:
        """The prediction of a U-Net that gives and takes features, or with interval 1 of any.

        `made_of`: what the feature depends on besides the latents; equal where it is the same. Raises `NumericError`.
        """
        if self._interval == 1:
            return call(runner, inputs, held)["prediction"]
        window, kept = evaluation // self._interval, self._kept.get(place)
        if kept is not None and kept.window == window and kept.made_of == made_of:
            return call(runner, {**inputs, FEATURE: kept.feature}, held)["prediction"]
        found = call(runner, inputs, held)
        feature = found[FEATURE]
        check_outputs(runner.name, {FEATURE: feature})
        self._kept[place] = _Kept(feature=feature, window=window, made_of=made_of)
        return found["prediction"]
