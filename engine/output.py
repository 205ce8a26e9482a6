"""What a call returns: pictures, and what they were made with."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .errors import RequestError
from .request.request import ResolvedRequest
from .vae import to_uint8


@dataclass(frozen=True, kw_only=True)
class Output:
    """`images`: PIL pictures, or arrays (n, H, W, 3) in [0, 1], or latents (n, 4, H/8, W/8), by `output_type`.

    A call that was ended before its first step was done has none.
    """

    images: Any
    seeds: tuple[int | None, ...]
    """The seed of each picture, with which a call makes the same one again; None where a torch generator had moved."""
    request: ResolvedRequest
    """What was asked for, every default filled in."""
    steps: int
    """Evaluations that were made (heun makes two a step)."""
    interrupted: bool
    """True if the call was ended early; the pictures are then unfinished."""
    model: str
    """The engine's name: that of its folder."""
    model_hash: str
    """The start of `Pipeline.digest`, which tells engines of one name apart."""

    def settings(self, index: int = 0) -> dict[str, str]:
        """What picture `index` was made with, under AUTOMATIC1111's names where it has one."""
        from .picture.parameters import describe

        settings = describe(self.request, index, model=self.model, version=metadata.version("pocketxl"))
        return _with_hash(settings, self.model_hash)

    def save(self, path: str | Path, index: int = 0, *, quality: int | None = None) -> Path:
        """Write picture `index` with its settings inside; `.png`, `.jpg` or `.webp` chooses the format.

        `quality`: 1 to 100 for JPEG and WebP. `pocketxl inspect` shows the settings, `pocketxl generate --like` uses
        them. Raises `RequestError` and `StorageError`.
        """
        from .picture.files import write_picture

        path = Path(path)
        write_picture(path, self.pixels(index), self.settings(index), quality=quality)
        return path

    def pixels(self, index: int = 0) -> np.ndarray:
        """Picture `index` as (H, W, 3) of uint8. Raises `RequestError` where there is none."""
        if self.request.output_type == "latent":
            raise RequestError("output_type is 'latent', so there is no picture yet; decode it first")
        if not 0 <= index < len(self.images):
            raise RequestError(f"picture {index} is not there; this output has {len(self.images)}")
        image = self.images[index]
        return to_uint8(image) if isinstance(image, np.ndarray) else np.asarray(image)


def _with_hash(settings: Mapping[str, str], digest: str) -> dict[str, str]:
    """The settings with the model's hash before its name, where AUTOMATIC1111 has it."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if name == "Model":
            found["Model hash"] = digest
        found[name] = value
    return found
