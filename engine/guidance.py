"""Classifier-free guidance: what the negative prompt does to a prediction, and the model that the loop calls."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from .conditioning import TIME_VECTORS, Conditioning
from .control.part import ControlPart, Residuals
from .control.t2i_adapter import AdapterPart, Features
from .deep_features import DeepFeatures
from .request.request import ResolvedRequest
from .runners.base import Held, Runner
from .sampling.denoise import Model
from .sampling.samplers.base import Array


@contextmanager
def guided_model(
    runner: Runner,
    prompts: Sequence[Sequence[tuple[Conditioning, ...]]],
    request: ResolvedRequest,
    controls: Sequence[ControlPart] = (),
    adapters: Sequence[AdapterPart] = (),
    *,
    beside: Array | None = None,
    kept: DeepFeatures | None = None,
) -> Iterator[Model]:
    """(latents of all pictures, evaluation) → their guided predictions, while the block runs.

    `prompts`: for each evaluation what is given there; the same object where a text goes on. Keys and values are handed
    to the runner once. One picture at a time, so that none depends on its neighbours; each `Conditioning` of its prompt
    is one call. `controls` and `adapters` add to the U-Net; the rows of the former are grouped as its own. `beside`:
    (pictures, C, H, W) that an inpainting model takes behind the latents. `kept`: deep features from one evaluation to
    the next (None: none).
    """
    kept = kept or DeepFeatures(1)
    with ExitStack() as stack:
        holding: dict[int, Held] = {}

        def hold(conditioning: Conditioning) -> Held:
            if id(conditioning) not in holding:
                holding[id(conditioning)] = held = runner.hold(conditioning.key_values)
                stack.callback(held.release)
            return holding[id(conditioning)]

        calls = [[[(side.time_vectors, hold(side)) for side in sides] for sides in texts] for texts in prompts]
        residuals, features = Residuals.held(controls, stack), Features(adapters)

        def model(latents: Array, evaluation: int) -> Array:
            predictions = []
            for index in range(len(latents)):
                one, sides = latents[index : index + 1], []
                prompt = index // request.num_images_per_prompt
                for group, (time_vectors, held) in enumerate(calls[prompt][evaluation]):
                    vectors = time_vectors[evaluation]
                    rows = np.repeat(one, len(vectors), axis=0)
                    added = {**residuals(prompt, group, evaluation, rows), **features(evaluation)}
                    if beside is not None:
                        more = np.repeat(beside[index : index + 1], len(vectors), axis=0)
                        rows = np.concatenate([rows, more], axis=1)
                    inputs = {"latents": rows, TIME_VECTORS: vectors, **added}
                    made_of = (id(held), residuals.counting(evaluation), features.counting(evaluation))
                    place = (index, group)
                    sides.append(kept.ask(runner, inputs, held, place=place, evaluation=evaluation, made_of=made_of))
                predictions.append(_guided(np.concatenate(sides), request))
            return np.concatenate(predictions)

        yield model


def guide(unconditional: Array, conditional: Array, scale: float, rescale: float = 0.0) -> Array:
    """Push the prediction away from the negative prompt's: unconditional + scale·(conditional - unconditional).

    Arrays (pictures, C, H, W) float32. `rescale` in 0..1 pulls each picture's spread back to the conditional's, against
    overexposure at high scales: section 3.4 of Lin et al. 2023 (2305.08891); diffusers' `rescale_noise_cfg`.
    """
    guided = unconditional + (conditional - unconditional) * scale
    if rescale <= 0:
        return guided
    wanted, found = _spread(conditional), _spread(guided)
    # A constant prediction has no spread to rescale.
    factor = np.divide(wanted, found, out=np.ones_like(wanted), where=found > 0)
    return np.asarray(guided * (rescale * factor + (1 - rescale)), dtype=np.float32)


def _guided(sides: Array, request: ResolvedRequest) -> Array:
    """The prompt's prediction, and under guidance the negative's behind it → one."""
    if len(sides) == 1:
        return sides
    return guide(sides[1:], sides[:1], request.guidance_scale, request.guidance_rescale)


def _spread(prediction: Array) -> Array:
    axes = tuple(range(1, prediction.ndim))
    return np.asarray(prediction.std(axis=axes, ddof=1, keepdims=True, dtype=np.float64), dtype=np.float32)
