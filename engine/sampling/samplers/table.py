"""The table of samplers, and how people spell them."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ...errors import RequestError
from ..levels.placement import (
    DISTILLED,
    FRACTIONAL,
    FRACTIONAL_TO_FINAL,
    MULTISTEP,
    MULTISTEP_TO_CURVE,
    TRAINED,
)
from ..levels.settings import BetaSchedule, SchedulerSettings, TimestepSpacing
from .base import Sampler
from .calls import ENDS, MIDDLE
from .ddim import ddim
from .dpmpp import dpmpp_2m, dpmpp_2m_sde
from .dpmpp_sde import dpmpp_sde
from .euler import euler
from .euler_ancestral import euler_ancestral
from .heun import heun
from .lcm import lcm
from .unipc import unipc

_LATENT = SchedulerSettings(beta_start=0.00085, beta_end=0.012)
_SPACED = frozenset({"default", "sgm_uniform"})

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        sampler.name: sampler
        for sampler in (
            Sampler(
                name="euler",
                label="Euler",
                reference="EulerDiscreteScheduler",
                walk=euler,
                scaled_input=True,
                placement=FRACTIONAL_TO_FINAL,
            ),
            Sampler(
                name="euler_a",
                label="Euler a",
                reference="EulerAncestralDiscreteScheduler",
                walk=euler_ancestral,
                scaled_input=True,
                placement=FRACTIONAL,
                native=_SPACED,
            ),
            Sampler(
                name="heun",
                label="Heun",
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
                reference='DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2)',
                walk=dpmpp_2m,
                scaled_input=False,
                placement=MULTISTEP,
                falling=True,
            ),
            Sampler(
                name="dpmpp_2m_sde",
                label="DPM++ 2M SDE",
                reference='DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)',
                walk=dpmpp_2m_sde,
                scaled_input=False,
                placement=MULTISTEP,
                falling=True,
            ),
            Sampler(
                name="dpmpp_sde",
                label="DPM++ SDE",
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
                defaults=SchedulerSettings(timestep_spacing=TimestepSpacing.LEADING, clip_sample=True),
            ),
            Sampler(
                name="unipc",
                label="UniPC",
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
                defaults=replace(
                    _LATENT, beta_schedule=BetaSchedule.SCALED_LINEAR, timestep_spacing=TimestepSpacing.LEADING
                ),
            ),
        )
    }
)

SCHEDULES: Mapping[str, str] = MappingProxyType(
    {"default": "Automatic", "karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform"}
)
"""Schedule names → A1111's labels. `trailing` is diffusers' word for `sgm_uniform` and is taken for it."""

_SCHEDULE_WORDS = {"trailing": "sgm_uniform", "normal": "default", "uniform": "default"}


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
    return next((s for s in SAMPLERS.values() if plain in (_plain(s.name), _plain(s.label))), None)


def _plain(text: object) -> str:
    return " ".join(str(text).replace("_", " ").replace("++", "pp").lower().split())
