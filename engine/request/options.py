"""The options of a call, one row each: limits, its name in a picture's settings, its flag.

A new option is a row here, its field in `request.py`, and its use. `limits.py` checks by these rows,
`picture/parameters.py` writes and reads settings by them, and `commands/options.py` makes flags of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType


class Form(Enum):
    """How an option is written as text."""

    TEXT = auto()
    WHOLE = auto()
    NUMBER = auto()
    SIZE = auto()
    """(height, width) in Python, `WIDTHxHEIGHT` as text."""
    POINT = auto()
    """(top, left), with a blank between as text."""
    LEVELS = auto()
    """Numbers with blanks between."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One row. What is None does not apply: no limits, not in settings, no flag."""

    name: str
    """The keyword, diffusers' where it has one."""
    form: Form
    limits: tuple[float, float] | None = None
    """Least and greatest allowed value (of each number)."""
    label: str | None = None
    """AUTOMATIC1111's name for it where it has one."""
    flag: str | None = None
    help: str = ""


_SIDE = (8, 8192)
_SIZE = (1, 1 << 16)
_CROP = (0, 1 << 16)

# In the order in which settings are written into pictures.
ROWS = (
    Option(name="negative_prompt", form=Form.TEXT, label="Negative prompt", flag="--negative-prompt",
           help="what to keep away from"),
    Option(name="seed", form=Form.WHOLE, limits=(0, 2**64 - 1), label="Seed", flag="--seed",
           help="the same seed makes the same picture (default: a new one each time)"),
    Option(name="num_images_per_prompt", form=Form.WHOLE, limits=(1, 64), flag="--images",
           help="how many pictures; seeds count up from --seed (default: 1)"),
    Option(name="num_inference_steps", form=Form.WHOLE, limits=(1, 1000), label="Steps", flag="--steps",
           help="number of inference steps (default: 30)"),
    Option(name="guidance_scale", form=Form.NUMBER, limits=(0, 100), label="CFG scale", flag="--guidance-scale",
           help="how strictly to follow the prompt (default: 5)"),
    Option(name="width", form=Form.WHOLE, limits=_SIDE, flag="--width",
           help="pixels, a multiple of 8 (default: the model's native size)"),
    Option(name="height", form=Form.WHOLE, limits=_SIDE, flag="--height",
           help="pixels, a multiple of 8 (default: the model's native size)"),
    Option(name="strength", form=Form.NUMBER, limits=(0, 1), label="Denoising strength", flag="--strength",
           help="how much of --image is made anew, 0 to 1 (default: 0.3, with --mask 0.9999)"),
    Option(name="mask_blur", form=Form.NUMBER, limits=(0, 256), label="Mask blur", flag="--mask-blur",
           help="pixels by which the mask's edges are made soft (default: 0)"),
    Option(name="padding_mask_crop", form=Form.WHOLE, limits=(0, 8192), label="Masked area padding",
           flag="--padding-mask-crop", help="make what is white in --mask alone, with so many pixels around it, at "
           "--width and --height, and put it back (default: the whole picture)"),
    Option(name="denoising_start", form=Form.NUMBER, label="Denoising start", flag="--denoising-start",
           help="instead of --strength: --image is noisy already, as at this share of the steps, 0 to 1"),
    Option(name="hires_scale", form=Form.NUMBER, limits=(1, 16), label="Hires upscale", flag="--hires-scale",
           help="make the picture, enlarge it by this factor, and go over it again"),
    Option(name="hires_steps", form=Form.WHOLE, limits=(1, 1000), label="Hires steps", flag="--hires-steps",
           help="steps of the second pass (default: --hires-strength of --steps)"),
    Option(name="hires_strength", form=Form.NUMBER, limits=(0, 1), flag="--hires-strength",
           help="how much the second pass makes anew, 0 to 1 (default: 0.7)"),
    Option(name="hires_upscaler", form=Form.TEXT, label="Hires upscaler", flag="--hires-upscaler",
           help="latent or lanczos (default: latent, or the network of --upscaler)"),
    Option(name="denoising_end", form=Form.NUMBER, flag="--denoising-end",
           help="where the refiner takes over, 0 to 1 (default: 0.8)"),
    Option(name="prompt_2", form=Form.TEXT, label="Prompt 2", flag="--prompt-2",
           help="for the second text encoder alone (default: the prompt)"),
    Option(name="negative_prompt_2", form=Form.TEXT, label="Negative prompt 2", flag="--negative-prompt-2",
           help="for the second text encoder alone (default: the negative prompt)"),
    Option(name="guidance_rescale", form=Form.NUMBER, limits=(0, 1), label="CFG rescale", flag="--guidance-rescale",
           help="against overexposure, 0 to 1 (default: 0)"),
    Option(name="guidance_start", form=Form.NUMBER, limits=(0, 1), label="Guidance start", flag="--guidance-start",
           help="before this share of the way no negative prompt: half the time a step (default: 0)"),
    Option(name="guidance_end", form=Form.NUMBER, limits=(0, 1), label="Guidance end", flag="--guidance-end",
           help="the same, after it (default: 1)"),
    Option(name="deep_cache", form=Form.WHOLE, limits=(1, 1000), label="Deep cache", flag="--deep-cache",
           help="run the whole U-Net at every so many evaluations, its outer level alone between (default: 1)"),
    Option(name="eta", form=Form.NUMBER, limits=(0, 1), label="Eta", flag="--eta",
           help="noise of the samplers ddim and tcd, 0 to 1 (default: 0)"),
    Option(name="aesthetic_score", form=Form.NUMBER, limits=(0, 10), label="Aesthetic score", flag="--aesthetic-score",
           help="what the refiner is told of the beauty wanted, 0 to 10 (default: 6)"),
    Option(name="negative_aesthetic_score", form=Form.NUMBER, limits=(0, 10), label="Negative aesthetic score",
           flag="--negative-aesthetic-score", help="the same of the beauty to keep away from (default: 2.5)"),
    Option(name="original_size", form=Form.SIZE, limits=_SIZE, label="Original size", flag="--original-size",
           help="what SDXL is told of the picture's size before scaling, as WIDTHxHEIGHT (default: its own)"),
    Option(name="target_size", form=Form.SIZE, limits=_SIZE, label="Target size", flag="--target-size",
           help="what SDXL is told of the size wanted, as WIDTHxHEIGHT (default: the picture's own)"),
    Option(name="negative_original_size", form=Form.SIZE, limits=_SIZE, label="Negative original size"),
    Option(name="negative_target_size", form=Form.SIZE, limits=_SIZE, label="Negative target size"),
    Option(name="crops_coords_top_left", form=Form.POINT, limits=_CROP, label="Crop top-left", flag="--crop",
           help="what SDXL is told was cut off above and to the left, as 'TOP LEFT' (default: '0 0')"),
    Option(name="negative_crops_coords_top_left", form=Form.POINT, limits=_CROP, label="Negative crop top-left"),
    Option(name="controlnet_conditioning_scale", form=Form.NUMBER, limits=(0, 10)),
    Option(name="control_guidance_start", form=Form.NUMBER, limits=(0, 1)),
    Option(name="control_guidance_end", form=Form.NUMBER, limits=(0, 1)),
    Option(name="adapter_conditioning_scale", form=Form.NUMBER, limits=(0, 10)),
    Option(name="adapter_conditioning_factor", form=Form.NUMBER, limits=(0, 1)),
    Option(name="ip_adapter_scale", form=Form.NUMBER, limits=(0, 10)),
    Option(name="timesteps", form=Form.LEVELS, label="Timesteps"),
    Option(name="sigmas", form=Form.LEVELS, label="Sigmas"),
)  # fmt: skip

OPTIONS: Mapping[str, Option] = MappingProxyType({row.name: row for row in ROWS})
"""Keyword → row."""
