"""The table of samplers, and how people spell them."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ...errors import RequestError
from ..levels.placement import (
    DISTILLED,
    DISTILLED_TO_LOWEST,
    FRACTIONAL,
    FRACTIONAL_TO_FINAL,
    MULTISTEP,
    MULTISTEP_TO_CURVE,
    POSTERIOR,
    TRAINED,
)
from ..levels.settings import BetaSchedule, SchedulerSettings, TimestepSpacing
from .base import Sampler
from .calls import ENDS, MIDDLE
from .ddim import ddim
from .ddpm import ddpm
from .dpmpp import dpmpp_2m, dpmpp_2m_sde
from .dpmpp_2s_a import dpmpp_2s_a
from .dpmpp_3m_sde import dpmpp_3m_sde
from .dpmpp_sde import dpmpp_sde
from .er_sde import er_sde
from .euler import euler
from .euler_ancestral import euler_ancestral
from .heun import heun
from .lcm import lcm
from .res_multistep import res_multistep
from .tcd import tcd
from .unipc import unipc

_LATENT = SchedulerSettings(beta_start=0.00085, beta_end=0.012)
_TAUGHT = replace(_LATENT, beta_schedule=BetaSchedule.SCALED_LINEAR, timestep_spacing=TimestepSpacing.LEADING)
_SPACED = frozenset({"default", "sgm_uniform"})
_OTHERS: frozenset[str] = frozenset()
"""Of diffusers' schedulers none makes such steps."""

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        sampler.name: sampler
        for sampler in (
            Sampler(
                name="euler",
                label="Euler",
                aliases=("k_euler",),
                reference="EulerDiscreteScheduler",
                walk=euler,
                scaled_input=True,
                placement=FRACTIONAL_TO_FINAL,
            ),
            Sampler(
                name="euler_a",
                label="Euler a",
                aliases=("euler_ancestral", "k_euler_a"),
                reference="EulerAncestralDiscreteScheduler",
                walk=euler_ancestral,
                scaled_input=True,
                placement=FRACTIONAL,
                native=_SPACED,
            ),
            Sampler(
                name="heun",
                label="Heun",
                aliases=("k_heun",),
                reference="HeunDiscreteScheduler",
                walk=heun,
                scaled_input=True,
                placement=FRACTIONAL,
                calls=ENDS,
                clips=True,
                defaults=_LATENT,
            ),
            Sampler(
                name="dpmpp_2m",
                label="DPM++ 2M",
                aliases=("k_dpmpp_2m",),
                reference='DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2)',
                walk=dpmpp_2m,
                scaled_input=False,
                placement=MULTISTEP,
                falling=True,
            ),
            Sampler(
                name="dpmpp_2m_sde",
                label="DPM++ 2M SDE",
                aliases=("dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde"),
                reference='DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)',
                walk=dpmpp_2m_sde,
                scaled_input=False,
                placement=MULTISTEP,
                falling=True,
            ),
            Sampler(
                name="dpmpp_sde",
                label="DPM++ SDE",
                aliases=("dpmpp_sde_gpu", "k_dpmpp_sde"),
                reference="DPMSolverSDEScheduler",
                walk=dpmpp_sde,
                scaled_input=True,
                placement=FRACTIONAL,
                calls=MIDDLE,
                falling=True,
                defaults=_LATENT,
            ),
            Sampler(
                name="ddim",
                label="DDIM",
                reference="DDIMScheduler",
                walk=ddim,
                scaled_input=False,
                placement=TRAINED,
                clips=True,
                native=_SPACED,
                eta=True,
                defaults=SchedulerSettings(timestep_spacing=TimestepSpacing.LEADING, clip_sample=True),
            ),
            Sampler(
                name="unipc",
                label="UniPC",
                aliases=("uni_pc", "uni_pc_bh2"),
                reference='UniPCMultistepScheduler(solver_order=2, solver_type="bh2")',
                walk=unipc,
                scaled_input=False,
                placement=MULTISTEP_TO_CURVE,
                falling=True,
            ),
            Sampler(
                name="lcm",
                label="LCM",
                reference="LCMScheduler",
                walk=lcm,
                scaled_input=False,
                placement=DISTILLED,
                clips=True,
                native=frozenset({"default"}),
                defaults=_TAUGHT,
            ),
            Sampler(
                name="dpmpp_2s_a",
                label="DPM++ 2S a",
                aliases=("dpmpp_2s_ancestral", "k_dpmpp_2s_a"),
                reference="k-diffusion's sample_dpmpp_2s_ancestral",
                walk=dpmpp_2s_a,
                scaled_input=True,
                placement=FRACTIONAL,
                calls=ENDS,
                native=_OTHERS,
            ),
            Sampler(
                name="dpmpp_3m_sde",
                label="DPM++ 3M SDE",
                aliases=("dpmpp_3m_sde_gpu", "k_dpmpp_3m_sde"),
                reference="k-diffusion's sample_dpmpp_3m_sde, on the levels of DPMSolverMultistepScheduler",
                walk=dpmpp_3m_sde,
                scaled_input=False,
                placement=MULTISTEP,
                falling=True,
                native=_OTHERS,
            ),
            Sampler(
                name="res_multistep",
                label="Res Multistep",
                reference="ComfyUI's sample_res_multistep, on the levels of DPMSolverMultistepScheduler",
                walk=res_multistep,
                scaled_input=False,
                placement=MULTISTEP,
                falling=True,
                native=_OTHERS,
            ),
            Sampler(
                name="er_sde",
                label="ER SDE",
                reference="ComfyUI's sample_er_sde, on the levels of DPMSolverMultistepScheduler",
                walk=er_sde,
                scaled_input=False,
                placement=MULTISTEP,
                falling=True,
                native=_OTHERS,
            ),
            Sampler(
                name="ddpm",
                label="DDPM",
                reference="DDPMScheduler",
                walk=ddpm,
                scaled_input=False,
                placement=POSTERIOR,
                clips=True,
                native=_SPACED,
                defaults=SchedulerSettings(timestep_spacing=TimestepSpacing.LEADING, clip_sample=True),
            ),
            Sampler(
                name="tcd",
                label="TCD",
                reference="TCDScheduler",
                walk=tcd,
                scaled_input=False,
                placement=DISTILLED_TO_LOWEST,
                native=frozenset({"default"}),
                eta=True,
                defaults=_TAUGHT,
            ),
        )
    }
)

SCHEDULES: Mapping[str, str] = MappingProxyType(
    {
        "default": "Automatic",
        "karras": "Karras",
        "exponential": "Exponential",
        "sgm_uniform": "SGM Uniform",
        "normal": "Normal",
        "simple": "Simple",
        "beta": "Beta",
        "kl_optimal": "KL Optimal",
        "align_your_steps": "Align Your Steps",
        "ddim_uniform": "DDIM",
    }
)
"""Schedule names → A1111's labels. `trailing` is diffusers' word for `sgm_uniform` and is taken for it."""

_SCHEDULE_WORDS = {
    "trailing": "sgm_uniform", "sgmuniform": "sgm_uniform", "uniform": "normal", "polyexponential": "exponential",
    "ays": "align_your_steps",
}  # fmt: skip
"""Other spellings; A1111's Uniform is its Normal, and its Polyexponential (rho 1) its Exponential."""


def find_sampler(sampler: str, schedule: str = "default") -> tuple[Sampler, str]:
    """Sampler and schedule by name → their row and the schedule's own name.

    Taken in any case: our names (`dpmpp_2m`), A1111's (`DPM++ 2M`), and A1111's with the schedule at the end
    (`DPM++ 2M Karras`). Raises `RequestError` with the names allowed; also where the two arguments disagree.
    """
    chosen = find_schedule(schedule)
    name = _plain(sampler)
    for words, implied in _schedule_words():
        if name.endswith(f" {words}") and (row := _by_name(name.removesuffix(f" {words}"))):
            if chosen not in ("default", implied):
                raise RequestError(
                    f"sampler {sampler!r} names a schedule, and schedule is {schedule!r}; give one of them."
                )
            return row, implied
    if row := _by_name(name):
        return row, chosen
    raise RequestError(
        f"sampler {sampler!r} is unknown; choose one of {', '.join(SAMPLERS)} "
        f"(or {', '.join(s.label for s in SAMPLERS.values())}, with a schedule at the end if you like)."
    )


def find_schedule(schedule: str) -> str:
    """A schedule's own name; raises `RequestError` with the names allowed."""
    found = dict(_schedule_words()).get(_plain(schedule))
    if found is None:
        raise RequestError(f"schedule {schedule!r} is unknown; choose one of {', '.join([*SCHEDULES, 'trailing'])}.")
    return found


def _schedule_words() -> list[tuple[str, str]]:
    own = [(_plain(spelling), name) for name, label in SCHEDULES.items() for spelling in (name, label)]
    return [*own, *_SCHEDULE_WORDS.items()]


def _by_name(plain: str) -> Sampler | None:
    return next((s for s in SAMPLERS.values() if plain in map(_plain, (s.name, s.label, *s.aliases))), None)


def _plain(text: object) -> str:
    return " ".join(str(text).replace("_", " ").replace("++", "pp").lower().split())
