"""The models that a checkpoint may hold, a row each: what tells them apart, and what an engine must know of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...engine.architecture import SD15, SD21, SDXL, SizeIds, TextOutput
from ...engine.sampling.levels.settings import PredictionType

XL_PIPELINES = (
    "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"
)  # fmt: skip
SD_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "LatentConsistencyModelPipeline")


@dataclass(frozen=True, kw_only=True)
class TextRow:
    """How a model uses one text encoder."""

    original: str
    """What stands before its names in the original single-file layout."""
    pooled: bool
    output: TextOutput = TextOutput.PENULTIMATE
    open_clip: bool = False
    """Whether its names there are OpenCLIP's; else they are transformers'."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of model."""

    title: str
    """What messages call it."""
    size_ids: SizeIds | None
    text_encoders: Mapping[str, TextRow]
    """In the order in which their hidden states are joined."""
    models: str = SDXL
    """The family of an engine of it."""
    denoiser: str = "base"
    """Its part in an engine."""
    pipelines: tuple[str, ...] = XL_PIPELINES
    """The class names of diffusers under which a folder of it goes."""
    zeros: bool = True
    """Whether zeros stand for a negative prompt that is not given, where nothing is said of it."""
    notes: tuple[str, ...] = ("stable-diffusion-xl", "sdxl")
    """How the metadata of single files begin that name it."""
    sample_sizes: Mapping[str, int] = field(default_factory=dict)
    """Prediction type → latents along each side, where a single file of it is of another size than the bundled one."""
    told: bool = True
    """Whether a single file without a mark predicts noise; else it must be said, for there are two such models."""


FAMILIES: Mapping[str, Family] = {
    "base": Family(
        title="an SDXL base",
        size_ids=SizeIds.SIZE_CROP_TARGET,
        text_encoders={
            "text_encoder": TextRow(original="conditioner.embedders.0.transformer.", pooled=False),
            "text_encoder_2": TextRow(original="conditioner.embedders.1.model.", pooled=True, open_clip=True),
        },
    ),
    "refiner": Family(
        title="an SDXL refiner",
        denoiser="refiner",
        size_ids=SizeIds.SIZE_CROP_SCORE,
        text_encoders={
            "text_encoder_2": TextRow(original="conditioner.embedders.0.model.", pooled=True, open_clip=True)
        },
    ),
    "sd15": Family(
        title="Stable Diffusion 1.x",
        models=SD15,
        size_ids=None,
        text_encoders={
            "text_encoder": TextRow(
                original="cond_stage_model.transformer.", pooled=False, output=TextOutput.LAST_NORMED
            )
        },
        pipelines=SD_PIPELINES,
        zeros=False,
        notes=("stable-diffusion-v1", "sd_v1", "sd1"),
    ),
    "sd21": Family(
        title="Stable Diffusion 2.x",
        models=SD21,
        size_ids=None,
        # Of the public models' 24 layers the last is not read: the configuration of a folder has 23.
        text_encoders={
            "text_encoder": TextRow(
                original="cond_stage_model.model.", pooled=False, output=TextOutput.LAST_NORMED, open_clip=True
            )
        },
        pipelines=SD_PIPELINES,
        zeros=False,
        notes=("stable-diffusion-v2", "sd_v2", "sd2"),
        sample_sizes={PredictionType.EPSILON: 64},
        told=False,
    ),
}
PIPELINES = tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.pipelines))
