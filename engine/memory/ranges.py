"""The sizes that an engine's files take, where they were compiled for a range: asked before anything is loaded."""

from collections.abc import Iterator, Mapping

from ..architecture import Models
from ..errors import RequestError
from ..request.limits import LIMITS
from ..runners.base import Range, Runner
from .controls import model_of
from .workload import Workload

_SIDES = ("width", "height")
_OTHER_SIZE = "choose another size"


def check_ranges(models: Models, runners: Mapping[str, Runner], workload: Workload) -> None:
    """Raise `RequestError` for a call that one of the components cannot take, with what it is and what they take."""
    if workload.before is not None:
        used = {
            name: runner for name, runner in runners.items() if name.partition("/")[0] in workload.before.evaluations
        }
        check_ranges(models, used, workload.before)
    for name, runner in runners.items():
        for what, value, (least, most), fix in _asked(models, name, runner, workload):
            if not least <= value <= most:
                larger = ", or build the engine with --largest" if value > most and fix == _OTHER_SIZE else ""
                raise RequestError(f"{what} {value}, this engine takes {least} to {most}; {fix}{larger}")


def sides(models: Models, runners: Mapping[str, Runner]) -> Range:
    """The least and the most pixels along a side that all of the components take, and a request may have."""
    found = [LIMITS["width"], LIMITS["height"]]
    scale = models.vae.downscale
    for runner in runners.values():
        found += [(scale * low, scale * high) for low, high in (runner.ranges[s] for s in _SIDES if s in runner.ranges)]
    return int(max(low for low, _ in found)), int(min(high for _, high in found))


def _asked(models: Models, name: str, runner: Runner, workload: Workload) -> Iterator[tuple[str, int, Range, str]]:
    """What of the call has bounds there: words for it, its value, the bounds, and what to do."""
    scale, kind = models.vae.downscale, model_of(name)
    lengths = {
        "width": ("width is", workload.width, _OTHER_SIZE),
        "height": ("height is", workload.height, _OTHER_SIZE),
        "tokens": ("the prompt's tokens are", max(workload.prompt_tokens, default=0), "shorten the prompt"),
        "steps": (f"evaluations of the {kind} are", workload.evaluations.get(kind, 0), "choose fewer steps"),
    }
    for symbol, (least, most) in runner.ranges.items():
        if symbol in lengths:
            words, value, fix = lengths[symbol]
            times = scale if symbol in _SIDES else 1
            yield words, value, (times * least, times * most), fix
