"""The LoRAs that a call asks for: files, or names of those that were read before, and how much each counts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import RequestError
from .limits import finite, show

Loras = Mapping[str, float | tuple[float, float]]
"""File → weight, or its weights in the text encoders and in the U-Net."""
MOST_WEIGHT = 10.0
"""Of a LoRA, in either direction: beyond it nothing is left of a picture."""
MOST_LORAS = 32


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """One LoRA of a call."""

    file: str
    """As the caller named it."""
    weight: float
    """In U-Net and text encoders, or in the U-Net alone where the next is another."""
    text_weight: float | None = None
    """In the text encoders; None: the same."""
    tagged: bool = False
    """Whether the prompt names it, which then stands in pictures as it is."""
    name: str = ""
    """The file's name without its ending; empty until it has been read, like the next."""
    digest: str = ""
    """sha256 of the file in hex."""
    short_hash: str = ""
    """AUTOMATIC1111's, of its tensors, in 12 hexadecimal digits."""

    def weight_in(self, component: str) -> float:
        """How much it counts there."""
        text = component.rsplit("/", 1)[-1].startswith("text_encoder")
        return self.weight if self.text_weight is None or not text else self.text_weight


def lora_uses(value: object) -> tuple[LoraUse, ...]:
    """What the option `loras` asks for, those of weight 0 left out. Raises `RequestError`.

    A weight may be a pair: in the text encoders, and in the U-Net.
    """
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise RequestError(
            f'loras is {show(value)}; give files with their weights, such as {{"style.safetensors": 0.8}}'
        )
    if len(value) > MOST_LORAS:
        raise RequestError(f"loras are {len(value)}; at most {MOST_LORAS} are allowed")
    found = []
    for file, weight in value.items():
        if not isinstance(file, str | os.PathLike) or not os.fspath(file):
            raise RequestError(f"loras has {show(file)}; give the path of a file")
        if isinstance(weight, tuple) and len(weight) != 2:
            raise RequestError(f"the weight of LoRA {show(os.fspath(file))} is {show(weight)}; give one number, or two")
        text, unet = (_weight(file, one) for one in (weight if isinstance(weight, tuple) else (weight, weight)))
        if text or unet:
            found.append(LoraUse(file=os.fsdecode(file), weight=unet, text_weight=None if text == unet else text))
    return tuple(found)


def _weight(file: str | os.PathLike[str], weight: object) -> float:
    checked = finite(f"the weight of LoRA {show(os.fspath(file))}", weight)
    if abs(checked) > MOST_WEIGHT:
        raise RequestError(
            f"the weight of LoRA {show(os.fspath(file))} is {checked:g}; it must be -{MOST_WEIGHT:g} to "
            f"{MOST_WEIGHT:g}, and is 0.5 to 1 as a rule"
        )
    return checked
