"""Carries a memory plan out: components are loaded when a phase needs them, and released unless the plan keeps them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..runners.base import Runner
from .plan import MemoryPlan


class Residency:
    """The loaded set of one engine; `runners` by component name."""

    def __init__(self, runners: Mapping[str, Runner]) -> None:
        self._runners = runners

    def make_room(self, plan: MemoryPlan) -> None:
        """Release what an earlier plan kept and this one does not."""
        if plan.budget is None:
            return  # a component that this call does not use may stay for the next one
        for name, runner in self._runners.items():
            if runner.loaded and name not in plan.keep:
                runner.release()

    @contextmanager
    def phase(self, plan: MemoryPlan, *names: str) -> Iterator[None]:
        """Load `names` for a block, then release those that the plan does not keep (also on errors)."""
        try:
            for name in names:
                self._runners[name].load()
            yield
        finally:
            for name in names:
                if name not in plan.keep:
                    self._runners[name].release()

    def release_all(self) -> None:
        """Give all memory back, and the devices with it."""
        for runner in self._runners.values():
            runner.release()
        for device in {id(runner.device): runner.device for runner in self._runners.values()}.values():
            device.close()
