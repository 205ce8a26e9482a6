"""What stays of a U-Net from one evaluation to the next, where deep features are kept."""

from collections.abc import Mapping

from ..runners.base import Runner
from ..runners.cached import feature_of
from .workload import Workload

FLOAT = 4
_LATENT_PIXELS = 8 * 8


def feature_bytes(runner: Runner, workload: Workload) -> int:
    """Those of all pictures and both sides of the guidance, and one more that takes its forerunner's place."""
    feature = feature_of(runner)
    if feature is None:
        return 0
    _, channels, *_ = feature.shape
    return FLOAT * (workload.images * workload.rows + 1) * int(channels) * workload.pixels // _LATENT_PIXELS


def unstreamed(runners: Mapping[str, Runner], *, loras: bool) -> str:
    """What to do without where a call does not fit because of what goes through no segments; empty if it has none."""
    names = ["LoRAs"] * loras + ["deep_cache"] * any(feature_of(runner) is not None for runner in runners.values())
    return f", or leave {' and '.join(names)} out, with which nothing is streamed" if names else ""
