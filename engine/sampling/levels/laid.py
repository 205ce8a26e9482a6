"""A schedule's steps, laid on the trained noise levels: by number, along a curve, or where a caller wants them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import RequestError
from .curves import Curve
from .placement import Placement, Spaced, Span
from .settings import SchedulerSettings
from .spacing import Levels
from .trained import TrainSigmas, train_sigmas


@dataclass(frozen=True, kw_only=True)
class Laid:
    """Where each step begins (`timesteps`, `sigmas`, which has the end of the last too) and ends (`sigmas_next`)."""

    timesteps: Levels
    sigmas: Levels
    sigmas_next: Levels
    train_sigmas: TrainSigmas


def by_number(steps: int, spaced: Spaced, settings: SchedulerSettings, place: Placement) -> Laid:
    """At timesteps that `spaced` counts out."""
    trained = train_sigmas(settings, keep_zero=place.keeps_zero_snr)
    timesteps = spaced(steps, settings)
    sigmas = _with_final(timesteps, trained, settings, place)
    sigmas_next = place.sigmas_next(timesteps, sigmas, trained)
    return Laid(timesteps=timesteps, sigmas=sigmas, sigmas_next=sigmas_next, train_sigmas=trained)


def along_curve(name: str, curve: Curve, span: Span, steps: int, settings: SchedulerSettings, place: Placement) -> Laid:
    """At the noise levels of the curve called `name`, over what `span` says."""
    trained = train_sigmas(settings, keep_zero=False)
    levels = curve(steps, span(steps, settings, trained), settings)
    sigmas = np.append(levels, place.final_curve_sigma(settings, trained, levels))
    timesteps = place.timesteps_at(levels, trained, name)
    return Laid(timesteps=timesteps, sigmas=sigmas, sigmas_next=sigmas[1:], train_sigmas=trained)


def at_timesteps(timesteps: Sequence[float], settings: SchedulerSettings, place: Placement) -> Laid:
    """At a caller's timesteps. Raises `RequestError` for one that was not trained, and for two that become one."""
    asked = np.asarray(timesteps, dtype=np.float64)
    last = settings.num_train_timesteps - 1
    if asked[0] > last:
        raise RequestError(f"timesteps begins at {asked[0]:g}; this checkpoint was trained on {last} down to 0.")
    if place.whole_timesteps:
        asked = np.trunc(asked)
        if not (np.diff(asked) < 0).all():
            raise RequestError(f"timesteps is {list(timesteps)}; this sampler takes whole ones, and two are equal.")
    trained = train_sigmas(settings, keep_zero=place.keeps_zero_snr)
    sigmas = _with_final(asked, trained, settings, place)
    return Laid(timesteps=asked, sigmas=sigmas, sigmas_next=sigmas[1:], train_sigmas=trained)


def at_sigmas(sigmas: Sequence[float], settings: SchedulerSettings, place: Placement) -> Laid:
    """At a caller's noise levels, with the last one; float32, as diffusers takes them."""
    trained = train_sigmas(settings, keep_zero=False)
    given = np.asarray(sigmas, dtype=np.float32)
    timesteps = place.timesteps_at(given[:-1], trained, "default")
    levels = given.astype(np.float64)
    return Laid(timesteps=timesteps, sigmas=levels, sigmas_next=levels[1:], train_sigmas=trained)


def _with_final(timesteps: Levels, trained: TrainSigmas, settings: SchedulerSettings, place: Placement) -> Levels:
    levels = place.sigmas_at(timesteps, trained)
    return np.append(levels, place.final_sigma(settings, trained, levels))
