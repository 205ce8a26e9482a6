"""Carries a memory plan out: components are loaded when a phase needs them, and released unless the plan keeps them."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..progress import LOAD, Progress, track
from ..runners.adapted import form_of
from ..runners.base import Runner, Streams
from .plan import MemoryPlan


class Residency:
    """The loaded set of one engine, for several calls at once; `runners` by component name.

    A component has one form in memory: its plain graph, or with adapters an open one, whose weights are the same. A
    call that needs another form than a running one waits until that has left the component.
    """

    def __init__(self, runners: Mapping[str, Runner]) -> None:
        self._forms = dict(runners)
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._loading = {name: threading.Lock() for name in runners}
        self._users: Counter[str] = Counter()

    def make_room(self, plan: MemoryPlan) -> None:
        """Release what an earlier plan kept and this one does not."""
        if plan.budget is None:
            return  # a component that this call does not use may stay for the next one
        with self._lock:
            for name, runner in self._forms.items():
                if runner.loaded and name not in plan.keep and not self._users[name]:
                    runner.release()

    @contextmanager
    def phase(self, plan: MemoryPlan, runner: Runner, progress: Progress) -> Iterator[None]:
        """Load a component for a block, then release it unless the plan or another call keeps it."""
        name = runner.name
        self._enter(name, form_of(runner))
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
                self._left.notify_all()

    def loaded(self) -> list[str]:
        """The components that are in memory."""
        return [name for name, runner in self._forms.items() if runner.loaded]

    def leave_behind(self) -> None:
        """Forget what the process that this one was forked from has loaded: see `Runner`."""
        for runner in self._forms.values():
            if runner.loaded:
                runner.leave_behind()

    def release_all(self) -> None:
        """Give all memory back, and the devices with it."""
        for runner in self._forms.values():
            runner.release()
        for device in {id(runner.device): runner.device for runner in self._forms.values()}.values():
            device.close()

    def _enter(self, name: str, form: Runner) -> None:
        """Count a call in, once the component has the form that it needs or nobody uses it."""
        with self._left:
            while self._users[name] and self._forms[name] is not form:
                self._left.wait()
            if self._forms[name] is not form:
                self._forms[name].release()
                self._forms[name] = form
            self._users[name] += 1
