"""What a caller asks for, with diffusers' SDXL keyword names and defaults. `resolve.resolve` checks it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from ..errors import RequestError
from .advice import ADVICE
from .loras import Loras
from .resolved import Prompt as Prompt
from .resolved import ResolvedRequest as ResolvedRequest
from .resolved import Run as Run
from .resolved import Text as Text


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One call, unchecked. Names, meanings and defaults are those of diffusers' `StableDiffusionXLPipeline.__call__`.

    Ours are: `seed` (a number, or one for each picture; None draws one), `sampler` and `schedule` (by name), `refiner`
    (False: the base walks to the end). `prompt` may be a list; pictures come prompt by prompt.
    """

    prompt: str | Sequence[str]
    """What to paint; `(word:1.2)` weighs a word. A list makes pictures of each of its texts."""
    prompt_2: str | Sequence[str] | None = None
    """For the second text encoder alone; None: the prompt."""
    height: int | None = None
    """Pixels, a multiple of 8; None: the model's native size."""
    width: int | None = None
    """As `height`."""
    num_inference_steps: int = 50
    """Samplers with two evaluations a step (heun, dpmpp_sde) take twice the time."""
    timesteps: Sequence[float] | None = None
    """Falling, 0 to 999; instead of a schedule."""
    sigmas: Sequence[float] | None = None
    """Falling, the last one (often 0) is where the picture lands; instead of a schedule."""
    denoising_end: float | None = None
    """Share of the trained timesteps that the base walks, above 0 and below 1; None: 0.8 if a refiner follows."""
    guidance_scale: float = 5.0
    """How strictly to follow the prompt; up to 1 the negative prompt does not count, and a step takes half the time."""
    negative_prompt: str | Sequence[str] | None = None
    """None and an empty string differ: with None, SDXL base takes zeros for the negative embeddings."""
    negative_prompt_2: str | Sequence[str] | None = None
    """For the second text encoder alone; None: the negative prompt."""
    num_images_per_prompt: int = 1
    """Their seeds count up from `seed`."""
    eta: float = 0.0
    """Noise of the samplers ddim and tcd, 0 to 1."""
    generator: Any = None
    """In place of `seed`: a `torch.Generator`, or a list with one for each picture. Noise is drawn from them as
    diffusers does, so their state moves. A `numpy.random.Generator` gives its next number as the seed."""
    latents: npt.ArrayLike | None = None
    """(pictures, 4, height / 8, width / 8) noise of unit variance to start from."""
    prompt_embeds: Any = None
    """In place of `prompt`: (prompts, tokens, width) floats, or a mapping of model kind → those where a refiner takes
    part, or what `Pipeline.encode` returned, which has the other three too. Of any length up to 1,232 tokens."""
    negative_prompt_embeds: Any = None
    """As `prompt_embeds`, and of its shape; None: zeros, where the model takes them for no negative prompt."""
    pooled_prompt_embeds: Any = None
    """(prompts, P), or a mapping; beside `prompt_embeds`."""
    negative_pooled_prompt_embeds: Any = None
    """As `pooled_prompt_embeds`, beside `negative_prompt_embeds`."""
    clip_skip: int | None = None
    """How many layers before the penultimate one text encoders are read. `pocketxl build --clip-skip` settles it: this
    says no more than that it must be so; None: as the engine is."""
    output_type: str = "pil"
    """`pil`, `np` for arrays (n, H, W, 3) in [0, 1], or `latent` for latents (n, 4, H / 8, W / 8)."""
    guidance_rescale: float = 0.0
    """Against overexposure (Lin et al., 2305.08891)."""
    guidance_start: float = 0.0
    """Share of the trained timesteps before which the negative prompt does not count: a step takes half the time."""
    guidance_end: float = 1.0
    """The same, after which (Kynkäänniemi et al., 2404.07724)."""
    deep_cache: int = 1
    """At every so many evaluations the whole U-Net runs, between them its outermost level alone on what the rest made
    last (DeepCache, Ma et al., 2312.00858): less time, other pictures. See docs/sampling.md."""
    original_size: tuple[int, int] | None = None
    """(height, width), like the five below; None: the picture's own size."""
    crops_coords_top_left: tuple[int, int] = (0, 0)
    """(top, left): what SDXL is told was cut off there."""
    target_size: tuple[int, int] | None = None
    """What SDXL is told of the size wanted; None: the picture's own."""
    negative_original_size: tuple[int, int] | None = None
    """What the negative side is told instead; it counts together with `negative_target_size`."""
    negative_crops_coords_top_left: tuple[int, int] = (0, 0)
    """As the one above; it counts with the two sizes beside it."""
    negative_target_size: tuple[int, int] | None = None
    """As the two above."""
    aesthetic_score: float = 6.0
    """What the refiner is told of the beauty wanted."""
    negative_aesthetic_score: float = 2.5
    """The same of the beauty to keep away from."""
    callback_on_step_end: Callable[..., Any] | None = None
    """Called as `(pipe, index, timestep, {"latents": array, "denoised": array})` after every evaluation; a returned
    dictionary with `latents` goes on from those. `pipe.preview` shows what is `denoised`."""
    seed: int | Sequence[int] | None = None
    """One number, which counts up from picture to picture, or one for each picture; None draws one."""
    sampler: str = "euler"
    """By name, or AUTOMATIC1111's label (`DPM++ 2M Karras` names the schedule too)."""
    schedule: str = "default"
    """How the steps are spaced; `default` is the checkpoint's own."""
    preset: str | None = None
    """Sampler, schedule, steps and guidance by one name (few-step models have theirs); what is given beside it counts
    instead. See docs/sampling.md."""
    refiner: bool = True
    """False: the base walks to the end, though the engine has a refiner."""
    embedding_folder: str | Path | None = None
    """Where names in the texts (`easynegative`, `embedding:easynegative`) are embeddings, `.safetensors` files."""
    dynamic: bool = False
    """True: `{a|b}` in the texts is one of them by chance, for each picture by its seed (library dynamicprompts)."""
    wildcard_folder: str | Path | None = None
    """Where `__name__` finds its lines, `name.txt`; asks for `dynamic` too."""
    loras: Loras | None = None
    """LoRA files (or names of those that were read before) with their weights; None: the pipeline's own."""
    lora_folder: str | None = None
    """Where LoRAs lie that prompts name as `<lora:name:0.8>`; None: such tags are words."""
    decoder: str = "full"
    """`full`: the VAE; `tiny`: an engine's tiny decoder (TAESD), nearly the same picture in a fraction of the time."""
    literal: bool = False
    """True: the texts are words alone: no weights, changes, `BREAK` or embeddings (see `escape`)."""
    image: Any = None
    """What to begin from instead of noise: a PIL picture, an array (H, W, 3) of uint8 or floats in [0, 1], a list with
    one for each prompt, or latents (n, 4, h, w). Where width or height are not given it has its own, rounded down."""
    strength: float | None = None
    """How much of `image` is made anew, 0 to 1: the share of the steps that is made; None: 0.3, with a mask 0.9999."""
    mask_image: Any = None
    """In the size of `image`: white is painted anew, black stays. A picture, an array (H, W), or one a prompt."""
    mask_blur: float = 0.0
    """Radius in pixels of `mask_image` of the blur that it is given before anything else."""
    paste_back: bool = False
    """True: what is black in the mask is `image` itself to the bit, not what the VAE makes of it."""
    padding_mask_crop: int | None = None
    """Pixels: what is white in the mask, with so many around it, is made alone, at `height` and `width` (None: the
    model's native ones), and put back into `image`; None: the whole picture is made."""
    denoising_start: float | None = None
    """Instead of `strength`: `image` has the noise that is left at this share of the trained timesteps already."""
    base: bool = True
    """False: the refiner alone, on `image`."""
    hires_scale: float | None = None
    """Above 1: the picture is made, enlarged by this factor, and made anew from there by `hires_strength`."""
    hires_strength: float = 0.7
    """The second pass's `strength`."""
    hires_steps: int | None = None
    """Steps that the second pass makes; None: `hires_strength` of `num_inference_steps`."""
    hires_upscaler: str | None = None
    """`latent` (bilinear, on latents), `lanczos` (on the picture, which is decoded and encoded for it), or what the
    pipeline's `upscaler` is called; None: that one, or `latent` where none is loaded."""
    control_image: Any = None
    """What ControlNets go by: a path, a PIL picture or an array, of one for each as a list, or by name as a mapping.
    Brought to the picture's size."""
    controlnet_conditioning_scale: float | Sequence[float] | Mapping[str, float] | None = None
    """How much they count, 0 to 10; None: 1. One for all, or for each like the pictures; likewise the three below."""
    control_guidance_start: float | Sequence[float] | Mapping[str, float] | None = None
    """Share of the steps from which on they count; None: 0."""
    control_guidance_end: float | Sequence[float] | Mapping[str, float] | None = None
    """Share of the steps up to which they count; None: 1."""
    control_preprocess: str | Sequence[str | None] | Mapping[str, str | None] | None = None
    """`canny` finds the picture's edges first; None: the picture is a hint already."""
    control_mode: Any = None
    """What the picture of a ControlNet-Union is, by name (`canny`, `depth` …) or number. One union may have several
    pictures at once: then a list, as of the pictures and scales."""
    adapter_image: Any = None
    """What T2I adapters go by, as `control_image`. diffusers' adapter pipeline calls it `image`."""
    adapter_conditioning_scale: float | Sequence[float] | Mapping[str, float] | None = None
    """How much they count, 0 to 10; None: 1. Of several their features are added, each by its scale."""
    adapter_conditioning_factor: float | Sequence[float] | Mapping[str, float] | None = None
    """Share of the steps up to which they count; None: 1."""
    adapter_preprocess: str | Sequence[str | None] | Mapping[str, str | None] | None = None
    """As `control_preprocess`."""
    ip_adapter_image: Any = None
    """A picture as a prompt beside the words, for the IP-Adapter that is loaded, or a list of them: paths, PIL pictures
    or arrays."""
    ip_adapter_scale: float | None = None
    """How much it counts, 0 to 10; None: 1."""

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Self:
        """Make a request from keywords. Raises `RequestError` for an unknown one, with advice, or without a prompt."""
        from difflib import get_close_matches

        known = {field.name for field in fields(cls)}
        for name in keywords:
            if name not in known:
                near = get_close_matches(str(name)[:64], known, n=1)
                advice = ADVICE.get(name) or (
                    f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
                )
                raise RequestError(f"argument {str(name)[:64]!r} is unknown; {advice}")
        if "prompt" not in keywords:
            raise RequestError("prompt is missing; give a text (an empty one is allowed)")
        return cls(**keywords)
