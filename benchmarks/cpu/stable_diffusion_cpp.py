"""stable-diffusion.cpp by the package cyllama: whole pictures with 8-bit weights (q8_0), base alone."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from .cases import Case
from .inputs import GUIDANCE, PROMPT, SEED
from .job import AbsentError, Model, Network
from .single_file import write_single_file

WIDTHS: Final = [320, 640, 1280]
"""Of the base's U-Net: stable-diffusion.cpp has SDXL's sizes built in, and takes no other model for one."""


@dataclass(frozen=True, kw_only=True)
class StableDiffusionCpp:
    """Reads the checkpoint as one file, and makes 8-bit weights of it while it loads. It draws noise of its own."""

    model: Model

    def prepare(self, network: Network) -> None:
        """Write the one file, or say what it cannot do."""
        config = json.loads((self.model.folder("base") / "config.json").read_text(encoding="utf-8"))
        if config["block_out_channels"] != WIDTHS:
            raise AbsentError("stable-diffusion.cpp knows SDXL's own widths only, not a smaller model's")
        if network == "refiner":
            raise AbsentError("stable-diffusion.cpp cannot hand over to a refiner; measure without --refiner")
        if not self._file.exists():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_single_file(self.model.base, self._file)

    def picture(self, case: Case) -> tuple[np.ndarray, float]:
        """The picture `[h, w, 3]` in 0 to 1, and the seconds that loading took."""
        from cyllama import sd

        settings = sd.SDContextParams()
        settings.model_path = str(self._file)
        settings.wtype = sd.SDType.Q8_0
        settings.n_threads = self.model.threads
        settings.diffusion_flash_attn = True
        settings.vae_decode_only = True
        begin = time.perf_counter()
        context = sd.SDContext(settings)
        loaded = time.perf_counter() - begin
        (made,) = context.generate(
            PROMPT,
            width=case.size,
            height=case.size,
            seed=SEED,
            sample_steps=case.steps,
            cfg_scale=GUIDANCE if case.guided else 1.0,
            sample_method=sd.SampleMethod.EULER,
        )
        return np.asarray(made.to_numpy(), np.float32) / 255, loaded

    @property
    def _file(self) -> Path:
        return self.model.work / "stable-diffusion.cpp" / "base.safetensors"


def open_system(model: Model) -> StableDiffusionCpp:
    """See `StableDiffusionCpp`."""
    return StableDiffusionCpp(model=model)
