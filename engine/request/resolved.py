"""One call, checked: what everything behind `resolve` works with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ..inversion.read import Inversion
from ..pictures_in.input import PictureInput
from ..sampling.samplers.base import Sampler
from .controls import ControlUse
from .embeds import Given
from .image_prompt import ImagePrompt
from .loras import LoraUse
from .t2i_adapters import AdapterUse

if TYPE_CHECKING:
    from .hires import Hires

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
        second, negative, negative_2 = (
            text and text.at(step) for text in (self.prompt_2, self.negative_prompt, self.negative_prompt_2)
        )
        return Prompt(
            prompt=self.prompt.at(step), prompt_2=second, negative_prompt=negative, negative_prompt_2=negative_2
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
    guidance_start: float
    guidance_end: float
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
    controls: tuple[ControlUse, ...] = ()
    """ControlNets that take part, in the order in which they were loaded."""
    image_prompt: ImagePrompt | None = None
    adapters: tuple[AdapterUse, ...] = ()
    """T2I adapters that take part, in the order in which they were loaded."""
    loras: tuple[LoraUse, ...] = ()
    pictures: PictureInput | None = None
    hires: "Hires | None" = None
    decoder: str = "full"
    deep_cache: int = 1
    """Every so many evaluations are whole."""

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
            pictures=None if self.pictures is None else self.pictures.at(index, self.images),
            embeddings=None
            if self.embeddings is None
            else {kind: (sides[index // self.num_images_per_prompt],) for kind, sides in self.embeddings.items()},
        )

    @property
    def images(self) -> int:
        """How many pictures."""
        return len(self.seeds)

    @property
    def made(self) -> tuple[int, int]:
        """(height, width) in pixels of the pictures that come out."""
        if self.pictures is not None and self.pictures.crops:
            height, width, _ = self.pictures.crops[0].picture.shape
            return height, width
        return (self.height, self.width) if self.hires is None else (self.hires.height, self.hires.width)

    @property
    def refiner(self) -> bool:
        """Whether the refiner takes part."""
        return "refiner" in self.kinds
