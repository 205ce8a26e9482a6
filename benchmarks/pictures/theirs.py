"""diffusers' pipelines on the checkpoint's folders, in float16 on a GPU, else in float32."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .cases import HAND_OVER, Case
from .stages import Stages


class Theirs:
    """Base, and refiner where there is one; `compiled`: their U-Nets by torch.compile, as CUDA graphs."""

    def __init__(self, base: Path, refiner: Path | None, *, compiled: bool) -> None:
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        options: dict[str, Any] = {"torch_dtype": torch.float16 if self._device == "cuda" else torch.float32}
        kinds = [(StableDiffusionXLPipeline, base), (StableDiffusionXLImg2ImgPipeline, refiner)]
        self._pipes: list[Any] = []
        for kind, folder in kinds:
            if folder is None:
                continue
            pipe = kind.from_pretrained(folder, **options).to(self._device)
            pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
            pipe.set_progress_bar_config(disable=True)
            if compiled:
                pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)
            self._pipes.append(pipe)

    def make(self, case: Case, text: str, seed: int) -> Stages:
        """See `Maker`; each model of a refined picture encodes the text itself."""
        started = self._now()
        pipes = self._pipes if case.refined else self._pipes[:1]
        embeds = [self._encoded(pipe, case, text) for pipe in pipes]
        marks = [self._now()]

        def mark(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
            marks.append(self._now())
            return given

        generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(case.images)]
        common = {
            "num_inference_steps": case.steps, "guidance_scale": case.guidance, "output_type": "latent",
            "num_images_per_prompt": case.images, "callback_on_step_end": mark,
        }  # fmt: skip
        size = {"width": case.side, "height": case.side, "generator": generators}
        ends = {"denoising_end": HAND_OVER} if case.refined else {}
        with torch.no_grad():
            latents = self._pipes[0](**embeds[0], **common, **size, **ends).images
            if case.refined:
                latents = self._pipes[1](
                    **embeds[1], **common, image=latents, denoising_start=HAND_OVER, generator=generators
                ).images
            sampled = self._now()
            pictures = self._decoded(latents)
        done = self._now()
        return Stages.of(started, marks, sampled, done, pictures)

    def in_use(self) -> int | None:
        """See `Maker`."""
        if self._device == "cpu":
            return None
        free, total = torch.cuda.mem_get_info()
        return total - free

    def planned(self, case: Case) -> int | None:
        """See `Maker`."""
        return None

    def _encoded(self, pipe: Any, case: Case, text: str) -> dict[str, Any]:
        guided = case.guidance > 1
        with torch.no_grad():
            made = pipe.encode_prompt(text, device=self._device, do_classifier_free_guidance=guided)
        names = (
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
        return {name: value for name, value in zip(names, made, strict=True) if value is not None}

    def _decoded(self, latents: Any) -> np.ndarray:
        pipe = self._pipes[0]
        vae = pipe.vae
        if vae.config.force_upcast and vae.dtype == torch.float16:
            pipe.upcast_vae()
        made = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        if self._device == "cuda":
            vae.to(torch.float16)
        return np.asarray(pipe.image_processor.postprocess(made, output_type="np"))

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
