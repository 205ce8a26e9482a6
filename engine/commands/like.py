"""`generate --like PICTURE`: the settings inside a picture as the defaults of a call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..architecture import Models
from ..errors import RequestError
from ..picture.control import IP_ADAPTER, T2I_ADAPTER, is_control
from ..picture.control import KEY as CONTROL
from ..picture.files import read_settings
from ..picture.infotext import NEGATIVE, PROMPT
from ..picture.inputs import HIRES, IMAGE, LABELS, MASK, pictures_needed
from ..picture.lora_hashes import KEY, read_hashes, without_tags
from ..picture.parameters import HANDOFFS, INVERSIONS, keywords
from ..request.decoders import SETTING as DECODER
from ..request.decoders import TINY, decoder_of
from ..request.hires import UPSCALERS
from ..request.loras import LoraUse
from ..request.options import OPTIONS
from ..request.request import Prompt
from ..request.untold import untold
from ..sampling.samplers.table import find_sampler, find_schedule

_OURS = {
    PROMPT, NEGATIVE, "Sampler", "Schedule type", "Size", "Refiner", DECODER, *HANDOFFS, *LABELS,
    *(row.label for row in OPTIONS.values() if row.label is not None),
}  # fmt: skip
_TOLD_ELSEWHERE = {KEY, "Model", "Model hash", "Version", "RNG", "Template", "Negative Template", INVERSIONS}
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

    def keywords(
        self, models: Models, *, lora_folder: bool = False, loras: bool = False, upscaler: bool = False
    ) -> tuple[dict[str, Any], list[str]]:
        """The call's keywords (`prompt` among them) as far as this engine knows them, and what is left out.

        `lora_folder`: whether there is a folder to find the picture's LoRAs in, which its prompt names; `loras`:
        whether others were given, which count instead; `upscaler`: the same of a network that enlarges.

        Raises `RequestError` for a setting that cannot be read.
        """
        settings = dict(self._settings)
        ours = _OURS | _TOLD_ELSEWHERE | _WITHOUT_EFFECT.get(models.family, set())
        left_out = [name for name in settings if name not in ours and not is_control(name)]
        for key, find in (("Sampler", find_sampler), ("Schedule type", find_schedule)):
            try:
                find(settings.get(key, "euler" if key == "Sampler" else "default"))
            except RequestError:
                left_out.append(f"{key} {settings.pop(key)}")
        named = settings.get("Hires upscaler")
        if upscaler:
            settings.pop("Hires upscaler", None)
        elif HIRES in settings and named is not None and named.lower() not in UPSCALERS:
            left_out.append(f"Hires upscaler {settings.pop('Hires upscaler')} (give --upscaler)")
        if decoder_of(settings.get(DECODER, "")) == TINY and models.tiny_decoder is None:
            left_out.append(f"{DECODER} {settings.pop(DECODER)}")
        if "Refiner" in settings and "refiner" not in models.denoisers:
            left_out.append("Refiner")
            for key in ("Refiner", HANDOFFS[0]):  # without one, the base would stop there
                settings.pop(key, None)
        for name in untold(models):
            if (label := OPTIONS[name].label) in settings:
                left_out.append(f"{label}")
                settings.pop(str(label))
        if KEY in settings and not lora_folder:
            settings[PROMPT], tagged = without_tags(settings.get(PROMPT, ""))
            if tagged and not loras:
                left_out.append(f"{KEY} ({', '.join(read_hashes(settings))}; give --lora-folder)")
        return keywords(settings), left_out

    def other_embeddings(self, prompt: Prompt) -> list[str]:
        """The embeddings that the picture names and this call's prompt does not hold as they were."""
        here = {(one.name.lower(), one.digest[:HASH_LEAST]) for one in prompt.inversions}
        told = [part.rpartition(":") for part in self._settings.get(INVERSIONS, "").split(",") if ":" in part]
        wanted = [(name.strip(), digest.strip()) for name, _, digest in told]
        return [name for name, digest in wanted if (name.lower(), digest.lower()[:HASH_LEAST]) not in here]

    @property
    def settings(self) -> Mapping[str, str]:
        """As they stand there."""
        return self._settings

    @property
    def ip_adapter(self) -> str | None:
        """The IP-Adapter that it was made with, whose picture is not inside."""
        return self._settings.get(IP_ADAPTER)

    def controls(self) -> list[str]:
        """The ControlNets that it was made with, whose pictures are not inside."""
        return self._steering(CONTROL)

    def adapters(self) -> list[str]:
        """The picture's T2I adapters, in words; their hints are not inside."""
        return self._steering(T2I_ADAPTER)

    def _steering(self, kind: str) -> list[str]:
        settings = self._settings.items()
        return [f"{key} ({value})" for key, value in settings if is_control(key) and key.startswith(f"{kind} ")]

    def other_loras(self, loras: Sequence[LoraUse]) -> list[str]:
        """Names of this call's LoRAs that were other files when the picture was made."""
        theirs = read_hashes(self._settings)
        return [use.name for use in loras if theirs.get(use.name, use.short_hash) != use.short_hash]

    @property
    def pictures_needed(self) -> tuple[bool, bool]:
        """Whether it was made from a picture, and from a mask."""
        return pictures_needed(self._settings)

    @property
    def picture_digests(self) -> tuple[str | None, str | None]:
        """The sha256 of the picture and of the mask, where it tells them."""
        return self._settings.get(IMAGE), self._settings.get(MASK)

    def other_model(self, name: str, digest: str) -> str | None:
        """The model that the picture names, if it is another than this engine's."""
        made_by, made_with = self._settings.get("Model"), self._settings.get("Model hash")
        if made_with is None:
            return None if made_by in (None, name) else made_by
        if digest.startswith(made_with):
            return None
        return f"{made_by or 'a model'} ({made_with})"
