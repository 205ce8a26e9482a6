"""A U-Net with its conditioning and guidance: what the denoising loop calls."""

from collections.abc import Sequence

import numpy as np

from .conditioning import Conditioning, Guided
from .denoise import Model
from .guidance import guide
from .request import ValidRequest
from .runners.base import Runner
from .samplers.base import Array


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
