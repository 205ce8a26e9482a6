"""The gate of a build: every component when it is lowered, and a short run at the end, against the reference."""

from collections.abc import Sequence

import numpy as np

from ...engine.errors import QualityError
from ...engine.pipeline import Pipeline
from ...engine.progress import Progress, track
from ...engine.specs import Role
from ..progress import steps_of
from ..quantize.calibration import Calibration
from ..quantize.choose import LayerError
from ..quantize.half_range import LARGEST_HALF, beyond_half
from ..quantize.recipes import CalibrationSettings, Recipe
from .parity import Figures, psnr_db
from .run import one_picture
from .similarity import ssim
from .store import Part, ReferenceStore

_NAMED = 5
"""Layers in an error."""


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


def gate(
    component: str,
    role: Role,
    recipe: Recipe,
    figures: Figures,
    *,
    others: Sequence[Recipe] = (),
    worst: Sequence[LayerError] = (),
) -> None:
    """Raise `QualityError` that names the `worst` layers if the component misses the recipe's threshold."""
    limit = recipe.max_relative_error[role]
    if figures.relative_error <= limit:  # false for NaN, which therefore fails
        return
    keep = "keep them in floats (--keep LAYER for each)" if worst else ""
    named = ", ".join(f"{component}:{error.layer} ({error.relative_error:.3g})" for error in worst)
    raise QualityError(
        f"{component}: recipe {recipe.name} is off by {figures.relative_error:.3g} (relative error), "
        f"allowed is {limit:g}"
        + (f"; worst layers: {named}" if worst else "")
        + f"; {_advice(keep, [other.name for other in others if other.max_relative_error[role] < limit])}"
    )


def check_range(component: str, seen: Calibration) -> None:
    """Raise `QualityError` that names the layers whose numbers float16 does not have.

    Figures of a stand-in say nothing of that: ONNX Runtime's CPU provider keeps what stands between two of its layers
    in float32.
    """
    beyond = sorted(beyond_half(seen).items(), key=lambda item: -item[1])
    if not beyond:
        return
    named = ", ".join(f"{component}:{layer} ({size:.3g})" for layer, size in beyond[:_NAMED])
    raise QualityError(
        f"{component}: {len(beyond)} of its layers have numbers beyond {LARGEST_HALF:.0f}, the largest of float16, "
        f"among them {named}; build for a target that computes in float32"
    )


def check_pictures(
    recipe: Recipe, others: Sequence[Recipe], expected: np.ndarray, actual: np.ndarray
) -> dict[str, float]:
    """Pictures (n, H, W, 3) in [0, 1] → `psnr_db` over all of them, mean `ssim`, and `mean_abs`.

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
    return {"psnr_db": psnr, "ssim": float(ssim(actual, expected).mean()), "mean_abs": float(np.abs(difference).mean())}


def _advice(keep: str, exacter: Sequence[str]) -> str:
    """What can be done, in commands that work."""
    choose = f"choose a more exact recipe (--recipe {' or '.join(exacter)})" if exacter else ""
    return ", or ".join(filter(None, (keep, choose))) or "no recipe of this target is more exact: build for another"
