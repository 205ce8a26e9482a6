"""What ControlNets add to a U-Net in its part of the loop.

Before it, once: the picture → hint, the prompts → the ControlNet's own keys and values. In it: latents → what is added
to the U-Net's skip connections and its middle, of several ControlNets the sum.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..companion import CONTROL_MODE, CONTROL_SCALE, HINT_SCALE
from ..conditioning import TIME_VECTORS, Conditioning
from ..request.controls import ControlUse
from ..runners.base import Held, Runner, Value, call, check_outputs

HINT = "hint"


@dataclass(frozen=True, kw_only=True)
class ControlPart:
    """One ControlNet with all that it needs for a part of the loop."""

    runner: Runner
    hint: npt.NDArray[np.float32]
    """`[1, channels, h, w]`"""
    prompts: Sequence[Sequence[tuple[Conditioning, ...]]]
    """As the U-Net's: for each prompt and each evaluation."""
    scales: npt.NDArray[np.float32]
    """`[evaluations]`"""


def encode_hint(runner: Runner, use: ControlUse) -> npt.NDArray[np.float32]:
    """The features of a ControlNet's hints, `[1, channels, h, w]`: of several the sum. Raises `NumericError`."""
    found: npt.NDArray[np.float32] | None = None
    for hint, scale in zip(use.hints, use.hint_scales, strict=True):
        image = hint.picture.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        inputs: dict[str, npt.NDArray[Any]] = {"image": np.ascontiguousarray(image)}
        if hint.mode is not None:
            inputs |= {CONTROL_MODE: np.array([hint.mode]), HINT_SCALE: np.array([scale], np.float32)}
        outputs = call(runner, inputs)
        check_outputs(runner.name, outputs)
        found = outputs[HINT] if found is None else found + outputs[HINT]
    assert found is not None
    return found


class Residuals:
    """(a prompt's group of rows, evaluation, latents) → inputs of the U-Net, by name."""

    def __init__(self, parts: Sequence[ControlPart], held: Sequence[Mapping[int, Held]]) -> None:
        """`held`: of each ControlNet by the identity of what it is given."""
        self._parts, self._held = parts, held

    @classmethod
    def held(cls, parts: Sequence[ControlPart], stack: ExitStack) -> Self:
        """Hand over to every ControlNet what does not change, until the stack ends."""

        def hold(part: ControlPart, conditioning: Conditioning) -> Held:
            rows = conditioning.time_vectors.shape[1]
            held = part.runner.hold({**conditioning.key_values, HINT: np.repeat(part.hint, rows, axis=0)})
            stack.callback(held.release)
            return held

        given = [
            {id(side): side for texts in part.prompts for sides in texts for side in sides}.items() for part in parts
        ]
        return cls(
            parts,
            [{key: hold(part, side) for key, side in sides} for part, sides in zip(parts, given, strict=True)],
        )

    def counting(self, evaluation: int) -> tuple[bool, ...]:
        """Which of the ControlNets count there."""
        return tuple(bool(part.scales[evaluation]) for part in self._parts)

    def __call__(self, prompt: int, group: int, evaluation: int, latents: npt.NDArray[np.float32]) -> dict[str, Value]:
        """`latents`: `[rows, channels, h, w]`, as the U-Net gets them. ControlNets that do not count do not run.

        Where none counts there is nothing: the U-Net is then asked without what ControlNets add.
        """
        found: dict[str, Value] = {}
        for part, held in zip(self._parts, self._held, strict=True):
            scale = part.scales[evaluation]
            if scale == 0:
                continue
            side = part.prompts[prompt][evaluation][group]
            inputs = {
                "latents": latents,
                TIME_VECTORS: side.time_vectors[evaluation],
                CONTROL_SCALE: np.array([scale], np.float32),
            }
            names = [tensor.name for tensor in part.runner.spec.outputs]
            given = part.runner(inputs, held[id(side)], keep=names)
            found = {
                name: np.asarray(found[name]) + np.asarray(value) if name in found else value
                for name, value in given.items()
            }
        return found
