"""The gate at the end of a build: every component and a short run against the unquantized reference."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from ...engine.errors import QualityError
from ...engine.folder.samples import Sample
from ...engine.pipeline import Pipeline
from ...engine.progress import Progress, track
from ...engine.runners.base import Loaded, Runner, call
from ...engine.specs import Arrays, Role
from ..components import Assembly, Component
from ..progress import steps_of
from ..quantize.recipes import CalibrationSettings, Recipe
from .calibrate import Calibration
from .parity import Figures, LayerError, compare, psnr_db, worst_layers
from .run import Reference, one_picture
from .store import KeptCall, Part, ReferenceStore


def check_components(
    runners: Mapping[str, Runner],
    assembly: Assembly,
    recipes: Mapping[str, Recipe],
    others: Sequence[Recipe],
    reference: Reference,
    store: ReferenceStore,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Component → figures (`relative_error`, `max_abs`, `psnr_db`, `samples`), one component in memory at a time.

    `recipes`: each component's; `others`: all that the target can do, for advice; `store`: figures that an interrupted
    build has left, and where they go. Raises `QualityError` that names the worst layers of the first component that
    misses its recipe's threshold.
    """
    kept = [store.read_call(0, number) for number in range(len(runners))]
    figures = {call.component: {n: float(v) for n, v in call.outputs.items()} for call in kept if call is not None}
    sizes = {name: assembly.components[name].weights.bytes for name in runners if name not in figures}
    with track(progress, "check: components", total=sum(sizes.values()), unit="B") as advance:
        for number, (name, runner) in enumerate(runners.items()):
            if name in figures:
                continue
            advance(0, detail=name)
            figures[name] = check_component(runner, assembly.components[name], recipes[name], others, reference)
            outputs = {figure: np.array(value) for figure, value in figures[name].items()}
            store.write_call(0, number, KeptCall(component=name, outputs=outputs, calibration=Calibration(ranges={})))
            advance(sizes[name], detail=name)
    return figures


def short_run(
    pipe: Pipeline, settings: CalibrationSettings, size: int, store: ReferenceStore, progress: Progress
) -> np.ndarray:
    """The pictures of the reference run as the engine makes them, (n, H, W, 3) in [0, 1]; `store` as above."""
    kept = {index: part.picture for index in range(settings.prompts) if (part := store.read(1 + index)) is not None}
    left = [index for index in range(settings.prompts) if index not in kept]
    with track(progress, "check: pictures", total=len(left) * settings.steps, unit="step") as advance:
        for index in left:
            kept[index] = one_picture(pipe, index, settings, size, steps_of(advance))
            store.write(1 + index, Part(picture=kept[index], samples={}, calibration={}, rows={}))
    return np.stack([kept[index] for index in range(settings.prompts)])


def check_component(
    runner: Runner, component: Component, recipe: Recipe, others: Sequence[Recipe], reference: Reference
) -> dict[str, float]:
    """Figures of one lowered component against the samples of the reference; see `check_components`."""
    samples, calibration = reference.samples[component.name], reference.calibration.get(component.name)
    with Loaded(runner):
        found = compare(_Recorded(samples), partial(call, runner), [inputs for inputs, _ in samples])
    worst = partial(_worst, component, recipe, calibration, samples[:1])
    gate(component.name, component.spec.role, recipe, found, others=others, worst=worst)
    return found.to_json()


def gate(
    component: str,
    role: Role,
    recipe: Recipe,
    figures: Figures,
    *,
    others: Sequence[Recipe] = (),
    worst: Callable[[], Sequence[LayerError]] | None = None,
) -> None:
    """Raise `QualityError` if the component misses the recipe's threshold; `worst` is asked for names only then."""
    limit = recipe.max_relative_error[role]
    if figures.relative_error <= limit:  # false for NaN, which therefore fails
        return
    layers = list(worst()) if worst is not None else []
    keep = "keep them in floats (--keep LAYER for each)" if layers else ""
    named = ", ".join(f"{component}:{error.layer} ({error.relative_error:.3g})" for error in layers)
    raise QualityError(
        f"{component}: recipe {recipe.name} is off by {figures.relative_error:.3g} (relative error), "
        f"allowed is {limit:g}"
        + (f"; worst layers: {named}" if layers else "")
        + f"; {_advice(keep, [other.name for other in others if other.max_relative_error[role] < limit])}"
    )


def check_pictures(
    recipe: Recipe, others: Sequence[Recipe], expected: np.ndarray, actual: np.ndarray
) -> dict[str, float]:
    """Pictures (n, H, W, 3) in [0, 1] → `psnr_db` over all of them, and `mean_abs`.

    Raises `QualityError` below the recipe's `min_psnr_db`; `others`: all that the target can do, for advice.
    """
    difference = actual.astype(np.float64) - expected
    error = float(np.square(difference).mean())
    psnr = psnr_db(error, 1.0)
    if not psnr >= recipe.min_psnr_db:
        exacter = [other.name for other in others if other.min_psnr_db > recipe.min_psnr_db]
        raise QualityError(
            f"recipe {recipe.name}: pictures are {psnr:.1f} dB from the unquantized ones, at least "
            f"{recipe.min_psnr_db:g} dB are required; {_advice('', exacter)}"
        )
    return {"psnr_db": psnr, "mean_abs": float(np.abs(difference).mean())}


def _advice(keep: str, exacter: Sequence[str]) -> str:
    """What can be done, in commands that work."""
    choose = f"choose a more exact recipe (--recipe {' or '.join(exacter)})" if exacter else ""
    return ", or ".join(filter(None, (keep, choose))) or "no recipe of this target is more exact: build for another"


def _worst(
    component: Component, recipe: Recipe, calibration: Calibration | None, samples: Sequence[Sample]
) -> list[LayerError]:
    """The worst layers of a component whose lowered form missed its threshold, simulated on the reference's inputs."""
    from .streamed import StreamedModule

    module = StreamedModule(component.module, component.spec, component.weights)
    return worst_layers(module, component.spec.role, recipe, calibration, [inputs for inputs, _ in samples])


class _Recorded:
    """The reference's own outputs, played back in order: running it again would cost minutes and give the same."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._outputs = iter([outputs for _, outputs in samples])

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs of the next sample."""
        return dict(next(self._outputs))
