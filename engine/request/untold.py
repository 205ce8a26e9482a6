"""Options that a model cannot be told: refused, since a picture would not show that nothing heard of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..architecture import Models
from ..errors import RequestError
from .limits import show

OF_SIZES = (
    "original_size", "target_size", "crops_coords_top_left",
    "negative_original_size", "negative_target_size", "negative_crops_coords_top_left",
)  # fmt: skip
OF_SECOND_TEXT = ("prompt_2", "negative_prompt_2")


def untold(models: Models) -> Mapping[str, str]:
    """Option → why the models know nothing of it."""
    base = models.denoisers["base"]
    found: dict[str, str] = {}
    if base.unet.size_ids is None:
        found |= dict.fromkeys(OF_SIZES, "only SDXL is told sizes")
    if len(base.text_encoders) == 1:
        found |= dict.fromkeys(OF_SECOND_TEXT, "the model has one text encoder")
    return found


def refuse_untold(request: Any, models: Models) -> None:
    """Raise `RequestError` for the first option of the request that says something to nobody."""
    for name, why in untold(models).items():
        value = getattr(request, name)
        if value is not None and not _nothing(value):
            raise RequestError(f"{name} is {show(value)}, but {why}; leave it out")


def _nothing(value: object) -> bool:
    """A crop of nothing, or no text."""
    return isinstance(value, Sequence) and (len(value) == 0 or list(value) == [0, 0])
