"""`generate --like PICTURE`: the settings inside a picture as the defaults of a call."""

from pathlib import Path
from typing import Any

from ..architecture import Models
from ..errors import RequestError
from ..picture.files import read_settings
from ..picture.infotext import NEGATIVE, PROMPT
from ..picture.parameters import HANDOFFS, INVERSIONS, keywords
from ..request.options import OPTIONS
from ..request.request import Prompt
from ..sampling.samplers.table import find_sampler, find_schedule

_OURS = {
    PROMPT, NEGATIVE, "Sampler", "Schedule type", "Size", "Refiner", *HANDOFFS,
    *(row.label for row in OPTIONS.values() if row.label is not None),
}  # fmt: skip
_TOLD_ELSEWHERE = {"Model", "Model hash", "Version", "RNG", "Template", "Negative Template", INVERSIONS}
"""Templates need nothing: the prompts are there as chance made them."""
_WITHOUT_EFFECT = {"sdxl": {"Clip skip"}}
"""By family, what AUTOMATIC1111 writes and does not heed: SDXL is always read at the penultimate layer."""
HASH_LEAST = 10
"""Digits of an embedding's hash that count: programs write 10 or 12."""


class Like:
    """What a picture says of its making."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises `RequestError` for a picture without settings, and what `read_settings` raises."""
        self._path = path
        self._settings = read_settings(path)
        if not self._settings:
            raise RequestError(f"{path} has no settings inside; give a picture that was saved with them")

    def keywords(self, models: Models) -> tuple[dict[str, Any], list[str]]:
        """The call's keywords (`prompt` among them) as far as this engine knows them, and what is left out.

        Raises `RequestError` for a setting that cannot be read.
        """
        settings = dict(self._settings)
        ours = _OURS | _TOLD_ELSEWHERE | _WITHOUT_EFFECT.get(models.family, set())
        left_out = [name for name in settings if name not in ours]
        for key, find in (("Sampler", find_sampler), ("Schedule type", find_schedule)):
            try:
                find(settings.get(key, "euler" if key == "Sampler" else "default"))
            except RequestError:
                left_out.append(f"{key} {settings.pop(key)}")
        if "Refiner" in settings and "refiner" not in models.denoisers:
            left_out.append("Refiner")
            for key in ("Refiner", HANDOFFS[0]):  # without one, the base would stop there
                settings.pop(key, None)
        return keywords(settings), left_out

    def other_embeddings(self, prompt: Prompt) -> list[str]:
        """The embeddings that the picture names and this call's prompt does not hold as they were."""
        here = {(one.name.lower(), one.digest[:HASH_LEAST]) for one in prompt.inversions}
        told = [part.rpartition(":") for part in self._settings.get(INVERSIONS, "").split(",") if ":" in part]
        wanted = [(name.strip(), digest.strip()) for name, _, digest in told]
        return [name for name, digest in wanted if (name.lower(), digest.lower()[:HASH_LEAST]) not in here]

    def other_model(self, name: str, digest: str) -> str | None:
        """The model that the picture names, if it is another than this engine's."""
        made_by, made_with = self._settings.get("Model"), self._settings.get("Model hash")
        if made_with is None:
            return None if made_by in (None, name) else made_by
        if digest.startswith(made_with):
            return None
        return f"{made_by or 'a model'} ({made_with})"
