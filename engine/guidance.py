"""Classifier-free guidance: what the negative prompt does to a prediction, and the model that the loop calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .conditioning import Conditioning
from .request.request import ValidRequest
from .runners.base import Runner
from .sampling.denoise import Model
from .sampling.samplers.base import Array


@dataclass(frozen=True, kw_only=True)
class Guided:
    """One prompt's conditioning, and its negative's (None without guidance)."""

    positive: Conditioning
    negative: Conditioning | None


def guided_model(runner: Runner, prompts: Sequence[Guided], request: ValidRequest) -> Model:
    """(latents of all pictures, evaluation) → their guided predictions.

    One row a call: a quantized U-Net takes its activation ranges from all rows together, so only alone is a picture the
    same in every batch; it also keeps the working memory at that of one row, and a processor gains nothing from more.
    """

    def predict(latents: Array, row: Conditioning, evaluation: int) -> Array:
        return runner({"latents": latents, **row.inputs(evaluation)})["prediction"]

    def model(latents: Array, evaluation: int) -> Array:
        predictions = []
        for index in range(len(latents)):
            one, prompt = latents[index : index + 1], prompts[index // request.num_images_per_prompt]
            prediction = predict(one, prompt.positive, evaluation)
            if prompt.negative is not None:
                unconditional = predict(one, prompt.negative, evaluation)
                prediction = guide(unconditional, prediction, request.guidance_scale, request.guidance_rescale)
            predictions.append(prediction)
        return np.concatenate(predictions)

    return model


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


def _spread(prediction: Array) -> Array:
    axes = tuple(range(1, prediction.ndim))
    return np.asarray(prediction.std(axis=axes, ddof=1, keepdims=True, dtype=np.float64), dtype=np.float32)
