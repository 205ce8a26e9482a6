"""What the reference run gives models that paint into pictures: something to paint into, without a download."""

from typing import Any

import numpy as np

from ...engine.architecture import Models

_WAVES = ((1.0, 0.4), (0.3, 1.3), (0.8, 0.9))
"""For red, green and blue: waves across and down."""


def painted_into(models: Models, index: int, size: int) -> dict[str, Any]:
    """The keywords of picture `index` of `size` × `size` pixels; none for models that make pictures out of prompts.

    Soft waves of colour; the mask is a window in every other picture, and else all but a margin at the left.
    """
    if not any(model.unet.inpaints(models.vae.latent_channels) for model in models.denoisers.values()):
        return {}
    along = np.linspace(0, 2 * np.pi, size, dtype=np.float32)
    phase = np.float32(index)
    planes = [np.cos(across * along[None] + down * along[:, None] + phase) for across, down in _WAVES]
    mask = np.zeros((size, size), np.float32)
    edge, middle = size // 4, slice(size // 4, size - size // 4)
    mask[:, edge:] = index % 2
    mask[middle, middle] = 1
    return {"image": np.stack(planes, axis=2) * np.float32(0.4) + np.float32(0.5), "mask_image": mask, "strength": 1.0}
