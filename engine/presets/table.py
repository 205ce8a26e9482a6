"""The table of presets. A new one is a row here; `docs/sampling.md` says what they cost and give.

Those for distilled models ask for what the models were distilled on, by their authors' own words (`source`), and tests
hold them to the timesteps that the authors' scheduler walks. Their guidance is 1 here, where the authors write 0: both
mean that the negative prompt is not computed, and other programs that read a picture's settings know only the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ..errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One row; what is None is left to the call's own default."""

    name: str
    summary: str
    source: str = ""
    """Where a distilled model's numbers are from; empty for presets of any model."""
    sampler: str
    schedule: str | None = None
    num_inference_steps: int
    guidance_scale: float
    timesteps: tuple[float, ...] | None = None
    """Those that a model was distilled on, where no schedule has them; as many as steps."""
    eta: float | None = None
    guidance_end: float | None = None
    refiner: bool | None = None

    def options(self) -> dict[str, Any]:
        """The keywords of a call that it stands for."""
        said = {name: getattr(self, name) for name in KEYWORDS}
        return {name: value for name, value in said.items() if value is not None}


KEYWORDS = tuple(field.name for field in fields(Preset) if field.name not in ("name", "summary", "source"))
"""What a preset may set."""

_LIGHTNING = "model card of ByteDance/SDXL-Lightning; Lin et al. 2024, 2402.13929"
_HYPER = "model card of ByteDance/Hyper-SD; Ren et al. 2024, 2404.13686"
_DMD2 = "model card of tianweiy/DMD2; Yin et al. 2024, 2405.14867"
_TURBO = "model card of stabilityai/sdxl-turbo; Sauer et al. 2023, 2311.17042"

_ROWS = (
    Preset(
        name="quality", summary="any model: the most for its time, refiner too",
        sampler="dpmpp_2m", schedule="karras", num_inference_steps=40, guidance_scale=5.0, refiner=True,
    ),
    Preset(
        name="fast", summary="any model: ten steps where they count most, refiner too",
        sampler="dpmpp_2m", schedule="align_your_steps", num_inference_steps=10, guidance_scale=5.0, refiner=True,
    ),
    Preset(
        name="laptop", summary="any model: ten steps of the base, the last of them without the negative prompt",
        sampler="dpmpp_2m", schedule="align_your_steps", num_inference_steps=10, guidance_scale=5.0, guidance_end=0.8,
        refiner=False,
    ),
    Preset(
        name="lcm", summary="latent consistency models with the guidance inside (lcm-sdxl)",
        source="model card of latent-consistency/lcm-sdxl; Luo et al. 2023, 2310.04378",
        sampler="lcm", num_inference_steps=4, guidance_scale=8.0, refiner=False,
    ),
    Preset(
        name="lcm-lora", summary="any model with an LCM-LoRA",
        source="model card of latent-consistency/lcm-lora-sdxl; Luo et al. 2023, 2311.05556",
        sampler="lcm", num_inference_steps=4, guidance_scale=1.0, refiner=False,
    ),
    Preset(
        name="turbo", summary="SDXL-Turbo; up to 4 steps, pictures of 512x512", source=_TURBO,
        sampler="euler_a", schedule="sgm_uniform", num_inference_steps=1, guidance_scale=1.0, refiner=False,
    ),
    *(
        Preset(
            name=f"lightning-{steps}", summary=f"SDXL-Lightning for {steps} steps", source=_LIGHTNING,
            sampler="euler", schedule="sgm_uniform", num_inference_steps=steps, guidance_scale=1.0, refiner=False,
        )
        for steps in (2, 4, 8)
    ),
    Preset(
        name="hyper-1", summary="Hyper-SDXL's U-Net for one step", source=_HYPER,
        sampler="lcm", num_inference_steps=1, guidance_scale=1.0, timesteps=(800,), refiner=False,
    ),
    *(
        Preset(
            name=f"hyper-{steps}", summary=f"any model with Hyper-SDXL's LoRA for {steps} steps", source=_HYPER,
            sampler="ddim", schedule="sgm_uniform", num_inference_steps=steps, guidance_scale=1.0, refiner=False,
        )
        for steps in (2, 4, 8)
    ),
    Preset(
        name="hyper-unified", summary="any model with Hyper-SDXL's LoRA for one step; up to 8 steps", source=_HYPER,
        sampler="tcd", num_inference_steps=1, guidance_scale=1.0, eta=1.0, refiner=False,
    ),
    Preset(
        name="dmd2", summary="DMD2 for four steps", source=_DMD2,
        sampler="lcm", num_inference_steps=4, guidance_scale=1.0, timesteps=(999, 749, 499, 249), refiner=False,
    ),
    Preset(
        name="dmd2-1", summary="DMD2 for one step", source=_DMD2,
        sampler="lcm", num_inference_steps=1, guidance_scale=1.0, timesteps=(399,), refiner=False,
    ),
    Preset(
        name="tcd", summary="any model with a TCD-LoRA", source="model card of h1t/TCD-SDXL-LoRA; Zheng et al. 2024, "
        "2402.19159",
        sampler="tcd", num_inference_steps=4, guidance_scale=1.0, eta=0.3, refiner=False,
    ),
)  # fmt: skip

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
"""By name."""


def find_preset(name: object) -> Preset:
    """A preset by its name, in any case. Raises `RequestError` with all names."""
    row = PRESETS.get(name.strip().lower().replace("_", "-")) if isinstance(name, str) else None
    if row is None:
        raise RequestError(f"preset {str(name)[:64]!r} is unknown; choose one of {', '.join(PRESETS)}")
    return row
