"""A checked request → what its call is made of: tokens, and each model's part of the noise levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Self

from .architecture import Models
from .memory.controls import MODEL
from .memory.workload import Workload
from .passes import begun, first_pass, second_pass, some
from .request.controls import ControlUse
from .request.request import ResolvedRequest
from .sampling.samplers.base import Schedule
from .sampling.schedule import make_schedule, split
from .scenes import GivenText, Scenes
from .text.encode import PromptTokens
from .text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked request with its prompts tokenized and its steps laid; mappings are by model kind, in running order."""

    request: ResolvedRequest
    tokens: Mapping[str, Sequence[PromptTokens | GivenText]]
    """Each prompt's; where one changes on its way, its texts' one after another."""
    order: Mapping[str, Sequence[Sequence[int]]]
    """Prompt by prompt, which of `tokens` stands at each evaluation of the model's part."""
    parts: Mapping[str, Schedule]
    """Each model's part of the noise levels; one that takes no step is not there."""
    init_noise_sigma: float
    first: Self | None = None
    """The pass before this one, whose pictures are enlarged for it."""

    @classmethod
    def of(cls, request: ResolvedRequest, models: Models, tokenizers: Mapping[str, Tokenizer]) -> Self:
        """Prepare a request. Raises `RequestError` for what only the checkpoint decides, such as too many steps."""
        if request.hires is not None:
            first = cls.of(first_pass(request), models, tokenizers)
            second = cls.of(second_pass(request), models, tokenizers)
            return replace(second, first=first, tokens={**first.tokens, **second.tokens})
        parts = _schedules(request, models)
        start = next(iter(parts.values())).init_noise_sigma
        parts = {kind: part for kind, part in parts.items() if part.evaluations}
        scenes = {
            kind: Scenes.of(request.prompts, part, models.denoisers[kind], tokenizers, request.guidance_scale)
            if request.embeddings is None
            else Scenes.given(request.embeddings[kind], part)
            for kind, part in parts.items()
        }
        return cls(
            request=request,
            tokens={kind: one.tokens for kind, one in scenes.items()},
            order={kind: one.order for kind, one in scenes.items()},
            parts=parts,
            init_noise_sigma=start,
        )

    def controls(self, kind: str) -> tuple[ControlUse, ...]:
        """The ControlNets that take part in that model's part of the loop."""
        return self.request.controls if kind == MODEL else ()

    @property
    def workload(self) -> Workload:
        """What its memory depends on."""
        # Where the models meet unequal numbers of texts, each is counted as if it met the most.
        columns = zip_longest(*([prompt.tokens for prompt in column] for column in self.tokens.values()), fillvalue=0)
        longest = tuple(map(max, columns))
        guidance = any(prompt.guided for column in self.tokens.values() for prompt in column)
        evaluations = {kind: len(part.evaluations) for kind, part in self.parts.items()}
        if self.first is None:
            return Workload.of(self.request, longest, evaluations, guidance=guidance)
        before = self.first.workload
        made = before.evaluations
        most = {kind: max(evaluations.get(kind, 0), made.get(kind, 0)) for kind in (*made, *evaluations)}
        return replace(Workload.of(self.request, longest, most, guidance=guidance), before=before)


def _schedules(request: ResolvedRequest, models: Models) -> dict[str, Schedule]:
    """Each model's part of the noise levels."""
    whole = {
        kind: make_schedule(
            models.denoisers[kind].scheduler,
            sampler=request.sampler,
            schedule=request.schedule,
            num_inference_steps=request.num_inference_steps,
            timesteps=request.timesteps,
            sigmas=request.sigmas,
        )
        for kind in request.kinds
    }
    whole = {kind: begun(schedule, request.pictures) for kind, schedule in whole.items()}
    if request.denoising_end is None:
        return some(whole)
    # The base walks the first part, the refiner the second one; without a refiner the noise is left in.
    second = {kind: kind == "refiner" and "base" in whole for kind in whole}
    return some({kind: split(whole[kind], request.denoising_end)[second[kind]] for kind in whole})
