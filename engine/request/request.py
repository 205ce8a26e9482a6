"""What a caller asks for, with diffusers' SDXL keyword names and defaults. `resolve.resolve` checks it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..inversion.read import Inversion
from ..sampling.samplers.base import Sampler
from .embeds import Given
from .loras import LoraUse

_ADVICE = {
    "steps": "use num_inference_steps", "cfg_scale": "use guidance_scale", "cfg": "use guidance_scale",
    "n": "use num_images_per_prompt", "batch_size": "use num_images_per_prompt", "size": "use width and height",
    "scheduler": "use sampler and schedule", "aspect_ratio": "use size_of(...) for width and height",
    "return_dict": "the result always has .images", "denoising_start": "use denoising_end; the refiner follows",
    "callback_on_step_end_tensor_inputs": "callbacks get the latents",
    "callback": "use callback_on_step_end",
    "image": "only text to image is supported", "strength": "only text to image is supported",
    "ip_adapter_image": "adapters are not supported", "ip_adapter_image_embeds": "adapters are not supported",
    "cross_attention_kwargs": "adapters are not supported",
}  # fmt: skip


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
    """Noise of the sampler ddim, 0 to 1."""
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
    """Called as `(pipe, index, timestep, {"latents": array})` after every evaluation; a returned dictionary with
    `latents` goes on from those."""
    seed: int | Sequence[int] | None = None
    """One number, which counts up from picture to picture, or one for each picture; None draws one."""
    sampler: str = "euler"
    """By name, or AUTOMATIC1111's label (`DPM++ 2M Karras` names the schedule too)."""
    schedule: str = "default"
    """How the steps are spaced; `default` is the checkpoint's own."""
    refiner: bool = True
    """False: the base walks to the end, though the engine has a refiner."""
    embedding_folder: str | Path | None = None
    """Where names in the texts (`easynegative`, `embedding:easynegative`) are embeddings, `.safetensors` files."""
    dynamic: bool = False
    """True: `{a|b}` in the texts is one of them by chance, for each picture by its seed (library dynamicprompts)."""
    wildcard_folder: str | Path | None = None
    """Where `__name__` finds its lines, `name.txt`; asks for `dynamic` too."""
    loras: Mapping[str, float] | None = None
    """LoRA files (or names of those that were read before) with their weights; None: the pipeline's own."""
    literal: bool = False
    """True: the texts are words alone: no weights, changes, `BREAK` or embeddings (see `escape`)."""

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Self:
        """Make a request from keywords. Raises `RequestError` for an unknown one, with advice, or without a prompt."""
        from difflib import get_close_matches

        known = {field.name for field in fields(cls)}
        for name in keywords:
            if name not in known:
                near = get_close_matches(str(name)[:64], known, n=1)
                advice = _ADVICE.get(name) or (
                    f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
                )
                raise RequestError(f"argument {str(name)[:64]!r} is unknown; {advice}")
        if "prompt" not in keywords:
            raise RequestError("prompt is missing; give a text (an empty one is allowed)")
        return cls(**keywords)


Run = tuple[str | Inversion, float]
"""Words or an embedding, and their weight; `prompt.BREAK` is one too."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text as it was given, and as it is tokenized: runs of equal weight (`prompt.parse_prompt`)."""

    given: str
    runs: tuple[Run, ...]
    """Where the text changes on its way, those of its first step."""
    schedule: tuple[tuple[int, "Text"], ...] = ()
    """Empty, or the texts that it is in turn, each with the step that it holds to, counted from 1 (`editing.py`)."""

    def at(self, step: int) -> "Text":
        """The text at a step, counted from 1: one that does not change."""
        last = self.schedule[-1][1] if self.schedule else self
        return next((text for end, text in self.schedule if step <= end), last)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The four texts of one prompt; None as in `GenerationRequest`."""

    prompt: Text
    prompt_2: Text | None = None
    negative_prompt: Text | None = None
    negative_prompt_2: Text | None = None
    template: str | None = None
    """What chance made `prompt` of (`dynamic.py`); None where nothing was."""
    negative_template: str | None = None

    @property
    def inversions(self) -> tuple[Inversion, ...]:
        """The embeddings that its texts hold, each once."""
        texts = [self.prompt, self.prompt_2, self.negative_prompt, self.negative_prompt_2]
        all_texts = [one for text in texts if text for one in (text, *(changed for _, changed in text.schedule))]
        return tuple(dict.fromkeys(what for text in all_texts for what, _ in text.runs if isinstance(what, Inversion)))

    def at(self, step: int) -> "Prompt":
        """The prompt at a step, counted from 1."""
        second, negative, negative_second = self.prompt_2, self.negative_prompt, self.negative_prompt_2
        return Prompt(
            prompt=self.prompt.at(step),
            prompt_2=second and second.at(step),
            negative_prompt=negative and negative.at(step),
            negative_prompt_2=negative_second and negative_second.at(step),
        )


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """One call, checked, every default filled in and every name looked up. Made by `resolve.resolve`.

    Nothing behind it checks a value again. Sizes and crops are (height, width) and (top, left).
    """

    prompts: tuple[Prompt, ...]
    """Picture i has `prompts[i // num_images_per_prompt]`."""
    num_images_per_prompt: int
    seeds: tuple[int | None, ...]
    """One a picture; None where the noise comes from a generator that no seed stands for."""
    generators: tuple[Any, ...] | None
    """torch generators that the noise is drawn from instead: one a picture, or one for all."""
    latents: npt.NDArray[np.float32] | None
    embeddings: Given | None
    """Model kind → what the caller gave in place of the prompts, which are empty then."""
    clip_skip: int
    height: int
    width: int
    sampler: Sampler
    schedule: str
    """The schedule's own name."""
    num_inference_steps: int
    timesteps: tuple[float, ...] | None
    sigmas: tuple[float, ...] | None
    eta: float
    guidance_scale: float
    guidance_rescale: float
    kinds: tuple[str, ...]
    """The models that take part, in running order."""
    denoising_end: float | None
    original_size: tuple[int, int]
    target_size: tuple[int, int]
    crops_coords_top_left: tuple[int, int]
    negative_original_size: tuple[int, int] | None
    negative_target_size: tuple[int, int] | None
    negative_crops_coords_top_left: tuple[int, int]
    aesthetic_score: float
    negative_aesthetic_score: float
    output_type: str
    callback_on_step_end: Callable[..., Any] | None
    loras: tuple[LoraUse, ...] = ()

    def picture(self, index: int) -> Self:
        """The same for picture `index` alone."""
        own = self.generators if self.generators is None or len(self.generators) == 1 else (self.generators[index],)
        return replace(
            self,
            prompts=(self.prompts[index // self.num_images_per_prompt],),
            num_images_per_prompt=1,
            seeds=(self.seeds[index],),
            generators=own,
            latents=None if self.latents is None else self.latents[index : index + 1],
            embeddings=None
            if self.embeddings is None
            else {kind: (sides[index // self.num_images_per_prompt],) for kind, sides in self.embeddings.items()},
        )

    @property
    def images(self) -> int:
        """How many pictures."""
        return len(self.seeds)

    @property
    def refiner(self) -> bool:
        """Whether the refiner takes part."""
        return "refiner" in self.kinds
