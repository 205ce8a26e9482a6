"""A checkpoint's scheduler config, checked once; what it leaves out, each sampler fills in for itself."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self, get_args, get_origin, get_type_hints

from ...errors import IncompatibleError
from .settings import BetaSchedule, FinalSigmasType, PredictionType, SchedulerSettings, TimestepSpacing

BOUNDS: Mapping[str, tuple[float, float]] = {
    "num_train_timesteps": (2, 10_000),
    "beta_start": (0, 1),
    "beta_end": (0, 1),
    "steps_offset": (0, 9_999),
    "clip_sample_range": (0, 1e6),
    "sigma_min": (0, 1e6),
    "sigma_max": (0, 1e6),
    "original_inference_steps": (1, 10_000),
    "timestep_scaling": (0, 1e6),
}
"""Least and greatest of the whole numbers; the others lie strictly between."""

UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "thresholding": (False,),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "use_beta_sigmas": (False,),
    "use_lu_lambdas": (False,),
    "use_flow_sigmas": (False,),
    "lambda_min_clipped": (float("-inf"),),
}
"""Options that are not here, and the values under which pictures are made without them."""


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What a checkpoint's scheduler_config.json says about its noise levels, under diffusers' names.

    None is an entry that it leaves out: what that means depends on the sampler (`filled`). Raises `IncompatibleError`
    for a value outside `BOUNDS`, and for two that contradict each other.
    """

    num_train_timesteps: int | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    beta_schedule: BetaSchedule | None = None
    trained_betas: tuple[float, ...] | None = None
    prediction_type: PredictionType | None = None
    timestep_spacing: TimestepSpacing | None = None
    steps_offset: int | None = None
    rescale_betas_zero_snr: bool | None = None
    final_sigmas_type: FinalSigmasType | None = None
    set_alpha_to_one: bool | None = None
    clip_sample: bool | None = None
    clip_sample_range: float | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    original_inference_steps: int | None = None
    timestep_scaling: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not (low <= value <= high if type(value) is int else low < value < high):
                whole = type(value) is int
                raise _wrong(name, value, f"{low:g} to {high:g}" if whole else f"above {low:g} and below {high:g}")
        trained = self.filled(SchedulerSettings()).num_train_timesteps
        if (betas := self.trained_betas) is not None and not (
            len(betas) == trained and all(0 <= beta <= 1 for beta in betas)
        ):
            raise _wrong("trained_betas", betas, f"{trained} numbers between 0 and 1")
        if self.steps_offset is not None and self.steps_offset >= trained:
            raise _wrong("steps_offset", self.steps_offset, f"below the {trained} num_train_timesteps")
        if self.sigma_min is not None and self.sigma_max is not None and self.sigma_min >= self.sigma_max:
            raise _wrong("sigma_min", self.sigma_min, f"below sigma_max, which is {self.sigma_max:g}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read diffusers' scheduler_config.json as a mapping.

        Entries that were only its author's class's defaults (`_use_default_values`), and those that are null, are left
        out; entries that no noise level depends on are ignored. Raises `IncompatibleError` for a value of another type
        and for an option that is not supported.
        """
        ignored = config.get("_use_default_values") or []
        if not isinstance(ignored, list):
            raise _wrong("_use_default_values", ignored, "a list of names")
        said = {key: value for key, value in config.items() if value is not None and key not in ignored}
        for key, allowed in UNSUPPORTED.items():
            if key in said and said[key] not in allowed:
                raise _wrong(key, said[key], " or ".join(map(repr, allowed)))
        return cls(**{name: _typed(name, kind, said[name]) for name, kind in _KINDS.items() if name in said})

    def filled(self, defaults: SchedulerSettings) -> SchedulerSettings:
        """The settings for a sampler whose reference assumes `defaults`."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(defaults, **{name: value for name, value in said.items() if value is not None})


# Each field's type without None, and of a list only that it is one.
_KINDS: Mapping[str, type] = {
    name: get_origin(kind) or kind
    for name, hint in get_type_hints(SchedulerConfig).items()
    for kind in get_args(hint)[:1]
}


def _typed(name: str, kind: type, value: Any) -> Any:
    """A JSON value as the field's type."""
    if issubclass(kind, StrEnum):
        if type(value) is str and value in list(kind):
            return kind(value)
        raise _wrong(name, value, f"one of {', '.join(kind)}")
    if kind is float and type(value) in (int, float):
        return float(value) if abs(value) < 1e300 else math.inf  # outside all bounds, as NaN is
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_typed(name, float, item) for item in value)
    if type(value) is kind:
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of numbers"}
    raise _wrong(name, value, words[kind])


def _wrong(name: str, value: object, allowed: str) -> IncompatibleError:
    return IncompatibleError(
        f"the checkpoint's scheduler config has {name} {reprlib.repr(value)}; it must be {allowed}. "
        "Correct its scheduler_config.json, or fetch the checkpoint again."
    )
