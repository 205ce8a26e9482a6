"""The LoRAs of a picture in its settings, as AUTOMATIC1111 writes them: tags in the prompt, and a hash for each.

a fox <lora:style:0.8>
…, Lora hashes: "style: 0123456789ab", …
"""

from collections.abc import Mapping, Sequence

from ..errors import RequestError
from ..request.lora_tags import take_tags
from ..request.loras import LoraUse

KEY = "Lora hashes"
_NOT_IN_NAMES = str.maketrans("", "", ':,<>"')


def tags_of(loras: Sequence[LoraUse]) -> str:
    """What is written behind the prompt for LoRAs that it does not name itself; those of weight 0 are not there."""
    return "".join(f" <lora:{_name(use)}:{_weights(use)}>" for use in loras if not use.tagged)


def hashes_of(loras: Sequence[LoraUse]) -> dict[str, str]:
    """The setting, if there is any LoRA."""
    pairs = {_name(use): use.short_hash for use in loras}
    return {KEY: ", ".join(f"{name}: {short}" for name, short in pairs.items())} if pairs else {}


def read_hashes(settings: Mapping[str, str]) -> dict[str, str]:
    """Name → hash, of our settings or another program's."""
    pairs = (part.partition(":") for part in settings.get(KEY, "").split(","))
    return {name.strip(): short.strip() for name, colon, short in pairs if colon and name.strip()}


def without_tags(prompt: str) -> tuple[str, bool]:
    """A picture's prompt without its tags, and whether there were any; one with broken tags as it is."""
    try:
        words, tags = take_tags(prompt)
    except RequestError:
        return prompt, False
    return (words.rstrip() if tags else words), bool(tags)


def _name(use: LoraUse) -> str:
    return use.name.translate(_NOT_IN_NAMES).strip() or "lora"


def _weights(use: LoraUse) -> str:
    weights = (use.weight,) if use.text_weight is None else (use.text_weight, use.weight)
    return ":".join(repr(float(weight)).removesuffix(".0") for weight in weights)
