"""Who is timed. A system opens a network, gets ready for a case's inputs, and predicts."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .cases import Name
from .inputs import Inputs
from .networks import Network

EVERY: Final[frozenset[Name]] = frozenset({"base", "refiner", "vae"})
UNETS: Final[frozenset[Name]] = frozenset({"base", "refiner"})
STRIDE: Final = 0.05
"""How far a loop goes along a prediction at each step: it stands for the sampler, and latents keep their size."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A system and a case's inputs. `predict(latents, step)` gives the prediction, an array of the latents' kind.

    `latents` lie where and as the system wants them. `device_seconds`: time that the GPU took for the last prediction,
    where the system knows and the whole call has more.
    """

    latents: Any
    predict: Callable[[Any, int], Any]
    device_seconds: Callable[[], float] | None = None


class Opened(Protocol):
    """A system with a network's weights in memory."""

    def __call__(self, inputs: Inputs) -> AbstractContextManager[Ready]:
        """Be ready for these inputs while the block lasts."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table. `open` gives memory back when its block ends. `reason`: why it cannot run here, or None.

    `compiles`: its first call takes long, and how long is told. `on_the_host`: latents and predictions are there, and
    its memory is not torch's.
    """

    name: str
    networks: frozenset[Name]
    open: Callable[[Network], AbstractContextManager[Opened]]
    compiles: bool = False
    on_the_host: bool = False
    reason: Callable[[], str | None] = lambda: None


def run_steps(ready: Ready, steps: int) -> Any:
    """One prediction; or `steps` of them, each on the latents that the one before it left, which are returned then."""
    if steps == 1:
        return ready.predict(ready.latents, 0)
    latents = ready.latents
    for step in range(steps):
        latents = latents - STRIDE * ready.predict(latents, step)
    return latents
