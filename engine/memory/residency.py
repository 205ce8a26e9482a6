"""Carries a memory plan out: components are loaded when a phase needs them, and released unless the plan keeps them."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..progress import LOAD, Progress, track
from ..runners.base import Runner, Streams
from .plan import MemoryPlan


class Residency:
    """The loaded set of one engine, for several calls at once; `runners` by component name."""

    def __init__(self, runners: Mapping[str, Runner]) -> None:
        self._runners = runners
        self._lock = threading.Lock()
        self._loading = {name: threading.Lock() for name in runners}
        self._users: Counter[str] = Counter()

    def make_room(self, plan: MemoryPlan) -> None:
        """Release what an earlier plan kept and this one does not."""
        if plan.budget is None:
            return  # a component that this call does not use may stay for the next one
        with self._lock:
            for name, runner in self._runners.items():
                if runner.loaded and name not in plan.keep and not self._users[name]:
                    runner.release()

    @contextmanager
    def phase(self, plan: MemoryPlan, name: str, progress: Progress) -> Iterator[None]:
        """Load component `name` for a block, then release it unless the plan or another call keeps it."""
        runner = self._runners[name]
        with self._lock:
            self._users[name] += 1
        try:
            with self._loading[name]:
                if not runner.loaded:
                    size = plan.footprints[name].weights
                    with track(progress, LOAD, total=size, unit="B", detail=name) as advance:
                        if name in plan.streamed and isinstance(runner, Streams):
                            runner.load_streamed()
                        else:
                            runner.load()
                        advance(size, name)
            yield
        finally:
            with self._lock:
                self._users[name] -= 1
                if not self._users[name] and name not in plan.keep:
                    runner.release()

    def release_all(self) -> None:
        """Give all memory back, and the devices with it."""
        for runner in self._runners.values():
            runner.release()
        for device in {id(runner.device): runner.device for runner in self._runners.values()}.values():
            device.close()
