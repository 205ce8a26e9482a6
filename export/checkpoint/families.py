"""The models that a checkpoint may hold, a row each: what tells them apart, and what an engine must know of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...engine.architecture import SizeIds, TextOutput


@dataclass(frozen=True, kw_only=True)
class TextRow:
    """How a model uses one text encoder."""

    original: str
    """What stands before its names in the original single-file layout."""
    pooled: bool
    output: TextOutput = TextOutput.PENULTIMATE


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of model."""

    size_ids: SizeIds
    text_encoders: Mapping[str, TextRow]
    """In the order in which their hidden states are joined."""
    pipelines: tuple[str, ...] = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    )
    """The class names of diffusers under which a folder of it goes."""


FAMILIES: Mapping[str, Family] = {
    "base": Family(
        size_ids=SizeIds.SIZE_CROP_TARGET,
        text_encoders={
            "text_encoder": TextRow(original="conditioner.embedders.0.transformer.", pooled=False),
            "text_encoder_2": TextRow(original="conditioner.embedders.1.model.", pooled=True),
        },
    ),
    "refiner": Family(
        size_ids=SizeIds.SIZE_CROP_SCORE,
        text_encoders={"text_encoder_2": TextRow(original="conditioner.embedders.0.model.", pooled=True)},
    ),
}
PIPELINES = tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.pipelines))
