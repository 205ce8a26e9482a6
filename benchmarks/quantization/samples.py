"""What components are called with in a float32 run, at low, middle and high noise."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Runner, call
from pocketxl.engine.specs import Arrays, Role
from pocketxl.export.reference.parity import compare

from .prompts import PROMPTS
from .torch_runner import TorchRunner

LEVELS = ("high", "middle", "low")
ALL = "all"
"""The one level of what does not know of noise."""
_KEY_VALUES = "key_values."
_FIRST = f"{_KEY_VALUES}0.key"
Inputs = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Component → noise level → inputs of calls; and the float32 modules that say what they should give."""

    inputs: Mapping[str, Mapping[str, list[Inputs]]]
    exact: Mapping[str, TorchRunner]

    def errors(self, component: str, runners: Mapping[str, Runner]) -> dict[str, float]:
        """Noise level → relative error (L2) of that component's worst output, on float32's own inputs.

        Between a conditioner and its U-Net each system has factors of its own: a U-Net is given the keys and values of
        the system's own conditioner, whose errors are thus in it, and these are compared but for a factor a channel.
        """
        own = self._key_values(component, runners)

        def lowered(one: Arrays) -> Inputs:
            known = own.get(one[_FIRST].tobytes(), {}) if _FIRST in one else {}
            return call(runners[component], {**one, **known})

        def exact(one: Arrays) -> Inputs:
            outputs = self.exact[component].outputs(one)
            if self.exact[component].spec.role is not Role.CONDITIONER:
                return outputs
            found = lowered(one)
            return {name: _scaled(array, found[name]) if name in found else array for name, array in outputs.items()}

        return {level: compare(exact, lowered, calls).relative_error for level, calls in self.inputs[component].items()}

    def _key_values(self, component: str, runners: Mapping[str, Runner]) -> dict[bytes, Inputs]:
        """Of a U-Net: the first key of float32's conditioner → all keys and values of the system's own."""
        conditioner = component.replace("/unet", "/conditioner")
        if conditioner == component:
            return {}
        found = {}
        for one in self.inputs[conditioner][ALL]:
            made = call(runners[conditioner], one)
            keys = {name: array for name, array in made.items() if name.startswith(_KEY_VALUES)}
            found[self.exact[conditioner].outputs(one)[_FIRST].tobytes()] = keys
        return found


def record(pipe: Pipeline, runners: Mapping[str, TorchRunner], *, steps: int, size: int, prompts: int = 2) -> Samples:
    """Run `prompts` prompts with float32 modules, the base over all noise levels and then both as in a picture.

    The base's levels are the first, middle and last step of its run alone, the refiner's those of its own part.
    """
    found: dict[str, dict[str, list[Inputs]]] = {name: {} for name in runners}
    exact = Pipeline(pipe.models, dict(runners), pipe.tokenizers)
    for index, prompt in enumerate(PROMPTS[:prompts]):
        for refiner in (False, True):
            for runner in runners.values():
                runner.seen = []
            exact(
                prompt, seed=index, num_inference_steps=steps, width=size, height=size, output_type="np",
                refiner=refiner,
            )  # fmt: skip
            for name, runner in runners.items():
                calls = runner.seen or []
                if name.startswith("base/") and refiner:
                    continue
                for level, some in levels_of(runner.spec.role, calls).items():
                    found[name].setdefault(level, []).extend(some)
    for runner in runners.values():
        runner.seen = None
    return Samples(inputs={name: levels for name, levels in found.items() if levels}, exact=runners)


def _scaled(exact: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`exact [..., channels]` with the factor for each channel that brings it nearest to `like`."""
    axes = tuple(range(exact.ndim - 1))
    power = np.square(exact).sum(axes)
    scaled: np.ndarray = exact * np.divide((exact * like).sum(axes), power, out=np.ones_like(power), where=power > 0)
    return scaled


def levels_of(role: Role, calls: list[Inputs]) -> dict[str, list[Inputs]]:
    """A step is two calls, one for each side of guidance; a component called once has one level."""
    if not calls or role is not Role.UNET:
        return {ALL: calls} if calls else {}
    last = len(calls) // 2 - 1
    return {level: calls[2 * at : 2 * at + 2] for level, at in zip(LEVELS, (0, last // 2, last), strict=True)}
