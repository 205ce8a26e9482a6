"""Our engines: networks through the runner that a pipeline uses, and pictures through the pipeline."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine.folder.files import KERNELS_SUFFIX
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners.base import Runner, call

from .cases import Case
from .inputs import GUIDANCE, HAND_OFF, PROMPT, SEED, Feeds
from .job import MINIATURE, Model, Network
from .systems import Call


@dataclass(frozen=True, kw_only=True)
class Ours:
    """The engine of a recipe; of base and refiner where one is given."""

    model: Model
    recipe: str
    target: str = "cpu"

    def prepare(self, network: Network) -> None:
        """Build the engine, if it is not there."""
        if self._folder.exists():
            return
        from pocketxl.engine.progress import Bars
        from pocketxl.export.build import build

        build(
            self.model.base,
            self._folder,
            refiner=self.model.refiner,
            target=self.target,
            recipe=self.recipe,
            progress=Bars(always=True),
        )

    def load(self, network: Network, feeds: Feeds) -> Call:
        """Load the component; for a U-Net, after its conditioner was asked what prompt and timestep come to.

        The conditioner is part of a U-Net's loading here, and no part of a forward: it is called once a picture. On
        OpenVINO the first call compiles, which is neither.
        """
        runners = self._pipeline().runners
        if network == "vae":
            decoder = runners["vae_decoder"]
            decoder.load()
            return lambda feeds: np.asarray(call(decoder, {"latents": feeds["latents"]})["image"])
        conditioner, unet = runners[f"{network}/conditioner"], runners[f"{network}/unet"]
        told = conditioner(_conditions(conditioner, feeds))
        conditioner.release()
        vectors = np.asarray(told.pop("time_vectors"))[0]
        unet.load()
        held = unet.hold(told)
        output = unet.spec.outputs[0].name
        return lambda feeds: np.asarray(call(unet, {"latents": feeds["sample"], "time_vectors": vectors}, held)[output])

    def picture(self, case: Case) -> tuple[np.ndarray, float]:
        """The picture `[h, w, 3]` in 0 to 1, and the seconds that loading took; components released after use."""
        from pocketxl.engine.memory.plan import LEAST

        pipe = self._pipeline(memory_budget=LEAST)
        loads: list[float] = []
        for runner in pipe.runners.values():
            _clock(runner, loads)
        guided: dict[str, Any] = {"guidance_scale": GUIDANCE, "negative_prompt": ""} if case.guided else {}
        refined = case.guided and self.model.refiner is not None
        made = pipe(
            PROMPT,
            seed=SEED,
            num_inference_steps=case.steps,
            width=case.size,
            height=case.size,
            output_type="np",
            sampler="euler",
            refiner=refined,
            **(guided or {"guidance_scale": 1.0}),
            **({"denoising_end": HAND_OFF} if refined else {}),
        )
        return np.asarray(made.images[0]), sum(loads)

    def forget(self) -> None:
        """Drop models that OpenVINO has compiled."""
        for path in self._folder.rglob(f"*{KERNELS_SUFFIX}"):
            path.unlink()

    def _pipeline(self, **settings: Any) -> Any:
        from pocketxl.engine import Pipeline

        return Pipeline.load(self._folder, threads=self.model.threads, **settings)

    @property
    def _folder(self) -> Path:
        if (self.target, self.recipe) == ("cpu", "int8") and self.model.base == MINIATURE / "base":
            return FOLDER
        return self.model.work / f"pocketxl-{'' if self.target == 'cpu' else f'{self.target}-'}{self.recipe}"


def _conditions(conditioner: Runner, feeds: Feeds) -> Feeds:
    """What a conditioner is given, from what diffusers' U-Net is given."""
    found = {
        "prompt_embeds": feeds["encoder_hidden_states"],
        "pooled_prompt_embeds": feeds["text_embeds"],
        "time_ids": feeds["time_ids"],
        "timesteps": feeds["timestep"],
    }
    return {tensor.name: found[tensor.name] for tensor in conditioner.spec.inputs}


def _clock(runner: Any, loads: list[float]) -> None:
    """Have a runner's loading timed."""
    load = runner.load

    def timed() -> None:
        if runner.loaded:
            return
        begin = time.perf_counter()
        load()
        loads.append(time.perf_counter() - begin)

    runner.load = timed


def open_system(model: Model, recipe: str, target: str = "cpu") -> Ours:
    """See `Ours`."""
    return Ours(model=model, recipe=recipe, target=target)
