"""What a model's part of the loop is given beside the latents: computed before it, each component loaded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .architecture import Models, block_names
from .companion import CONTROL_TYPE
from .conditioning import Conditioning, Known, condition, time_ids
from .control.beside import Beside
from .control.image_prompt import Arrays, factors_of, features_of, key_values_of, with_pictures
from .control.part import ControlPart, encode_hint
from .control.t2i_adapter import AdapterPart, encode_features
from .memory.controls import MODEL
from .memory.plan import MemoryPlan
from .memory.residency import Residency
from .preparation import Prepared
from .progress import Progress
from .request.controls import ControlUse
from .request.embeds import Sides
from .runners.base import Runner
from .sampling.interval import guided_evaluations
from .sampling.samplers.base import Schedule
from .sampling.schedule import evaluation_timesteps

Told = Mapping[str, np.ndarray]
NOTHING_MORE: Told = MappingProxyType({})
Prompts = Sequence[Sequence[tuple[Conditioning, ...]]]
"""For each prompt and each evaluation what a network of the loop is given: the same object where a text goes on."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Those of one call."""

    models: Models
    runners: Mapping[str, Runner]
    beside: Beside
    residency: Residency
    plan: MemoryPlan
    prepared: Prepared
    progress: Progress

    def of(
        self, kind: str, texts: Sequence[Sides], part: Schedule
    ) -> tuple[Prompts, list[ControlPart], list[AdapterPart]]:
        """What the U-Net is given for each prompt and its negative, evaluation by evaluation; what else adds to it.

        `texts`: the embeddings of all prompts' texts, one after another.
        """
        adapters = self._adapters(kind, len(part.evaluations))
        hints = {}
        uses = [(use, self.beside.controlnets[use.name]) for use in self.prepared.controls(kind)]
        for use, control in uses:
            with self.residency.phase(self.plan, control.hint_encoder, self.progress):
                hints[use.name] = encode_hint(control.hint_encoder, use)
        controls = [
            ControlPart(
                runner=control.unet,
                hint=hints[use.name],
                prompts=self._condition(control.conditioner, kind, texts, part, _told(use)),
                scales=use.scales(len(part.evaluations)),
            )
            for use, control in uses
        ]
        pictured = self._pictured(kind)
        prompts = self._condition(self.runners[f"{kind}/conditioner"], kind, texts, part)
        return (prompts if pictured is None else with_pictures(prompts, pictured)), controls, adapters

    def _adapters(self, kind: str, evaluations: int) -> list[AdapterPart]:
        """The features that T2I adapters make of their pictures."""
        found = []
        for use in self.prepared.request.adapters if kind == MODEL else ():
            adapter = self.beside.t2i_adapters[use.name]
            with self.residency.phase(self.plan, adapter.encoder, self.progress):
                features = encode_features(adapter, use)
            found.append(AdapterPart(features=features, scales=use.scales(evaluations)))
        return found

    def _pictured(self, kind: str) -> tuple[Arrays, Arrays] | None:
        """Keys and values of the pictures that are prompts, and of none; None without any."""
        prompt, adapter = self.prepared.request.image_prompt, self.beside.ip_adapter
        if prompt is None or adapter is None or kind != MODEL:
            return None
        with self.residency.phase(self.plan, adapter.encoder, self.progress):
            features = features_of(adapter.encoder, prompt, plus=adapter.architecture.plus)
        with self.residency.phase(self.plan, adapter.projection, self.progress):
            blocks = block_names(self.models.denoisers[kind].unet)
            factors = factors_of(self.runners[f"{kind}/conditioner"])
            own, none = (key_values_of(adapter.projection, one, prompt.scale, factors, blocks) for one in features)
        return own, none

    def _condition(
        self, runner: Runner, kind: str, texts: Sequence[Sides], part: Schedule, told: Told = NOTHING_MORE
    ) -> Prompts:
        """What a conditioner makes of each prompt and its negative, in rows as the model's U-Net takes them."""
        rows, request = self.runners[f"{kind}/unet"].rows, self.prepared.request
        ids = time_ids(request, self.models.denoisers[kind].unet.size_ids)
        guided = guided_evaluations(part, request.guidance_start, request.guidance_end)
        with self.residency.phase(self.plan, runner, self.progress):
            prompts = []
            for order in self.prepared.order[kind]:
                known: Known = {}
                scenes = {
                    (index, both): condition(
                        runner,
                        # Where guidance rests, the prompt stands alone.
                        [(embeds, own) for embeds, own in zip(texts[index], ids, strict=True) if embeds is not None][
                            : 2 if both else 1
                        ],
                        evaluation_timesteps(part),
                        rows=rows,
                        guidance_scale=request.guidance_scale,
                        known=known,
                        told=told,
                    )
                    for index, both in dict.fromkeys(zip(order, guided, strict=True))
                }
                prompts.append([scenes[at] for at in zip(order, guided, strict=True)])
            return prompts


def _told(use: ControlUse) -> Told:
    """What a ControlNet's conditioner is told of its hints."""
    kinds = use.control_type
    return NOTHING_MORE if kinds is None else {CONTROL_TYPE: kinds}
