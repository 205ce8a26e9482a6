"""What a call asks for, in the numbers that its memory depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ..request.request import ResolvedRequest
from ..upscaler import UpscalerArchitecture

_FLOAT, _COLOURS = 4, 3
_COPIES = 4


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One call: sizes, prompts, pictures, steps, tokens, guidance and models."""

    width: int
    height: int
    prompt_tokens: tuple[int, ...]
    """(prompts,) how many tokens each prompt's embeddings have (77 a chunk)."""
    images: int
    """Pictures of all prompts together."""
    guidance: bool
    evaluations: Mapping[str, int]
    """Model kind → calls of it a row, in running order; those without any take no part."""
    decoded: bool
    """False where the latents are what is asked for."""
    rests: bool = False
    """Guidance rests on a part of the way: there the prompt's row stands alone."""
    before: Self | None = None
    """The smaller pass of the same call before this one."""
    encoded: int = 0
    """Pictures as input that go through the VAE's encoder."""
    controls: tuple[str, ...] = ()
    """ControlNets that take part, by name."""
    adapters: tuple[str, ...] = ()
    """T2I adapters that take part, by name."""
    image_prompts: int = 0
    """Pictures that an IP-Adapter makes prompts of."""
    enlarged_by: UpscalerArchitecture | None = None
    """What makes the pictures of the pass before larger, if a network does."""
    whole: int = 0
    """Pixels of each picture of which a part alone is made; 0 where the whole is."""
    decoder: str = "full"
    """What decodes them (`request.decoders`)."""

    @classmethod
    def of(
        cls,
        request: ResolvedRequest,
        prompt_tokens: tuple[int, ...],
        evaluations: Mapping[str, int],
        *,
        guidance: bool,
    ) -> Self:
        """The workload of a checked request, once its prompts are tokenized and its steps laid.

        `guidance`: whether any of the models takes negatives.
        """
        given = request.pictures
        return cls(
            width=request.width,
            height=request.height,
            prompt_tokens=prompt_tokens,
            images=request.images,
            guidance=guidance,
            evaluations={kind: count for kind, count in evaluations.items() if count},
            decoded=request.output_type != "latent",
            rests=guidance and (request.guidance_start > 0 or request.guidance_end < 1),
            encoded=0 if given is None or given.latents is not None else given.count or request.images,
            controls=tuple(use.name for use in request.controls),
            adapters=tuple(use.name for use in request.adapters),
            image_prompts=0 if request.image_prompt is None else len(request.image_prompt.pixels),
            enlarged_by=None if given is None or given.enlarged_by is None else given.enlarged_by.architecture,
            whole=0 if given is None or not given.crops else request.made[0] * request.made[1],
            decoder=request.decoder,
        )

    @classmethod
    def of_decoding(cls, latents: tuple[int, ...], downscale: int, decoder: str = "full") -> Self:
        """The workload of nothing but decoding latents of shape (n, C, h, w)."""
        images, _, height, width = latents
        return cls(
            width=width * downscale,
            height=height * downscale,
            prompt_tokens=(),
            images=images,
            guidance=False,
            evaluations={},
            decoded=True,
            decoder=decoder,
        )

    @property
    def pixels(self) -> int:
        """Of one picture."""
        return self.width * self.height

    @property
    def kept_bytes(self) -> int:
        """The pictures and masks, as they came in, of which a part is made."""
        return self.encoded * self.whole * (_COLOURS + _FLOAT)

    @property
    def pasting_bytes(self) -> int:
        """The same, the whole pictures that come out, and the copies of the one that a part is put into."""
        return self.kept_bytes + _FLOAT * _COLOURS * self.whole * (self.images + _COPIES)

    @property
    def rows(self) -> int:
        """Rows that a prompt has: its own, and its negative's under guidance."""
        return 2 if self.guidance else 1
