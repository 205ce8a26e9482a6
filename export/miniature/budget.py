"""How far a training run is, when what it may use is time."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """Progress from 0 to 1 over active minutes, a wall-clock deadline, or a number of steps.

    A step that took long counts for at most `longest` seconds, so a suspended process does not lose its budget. With a
    deadline the rest of the run shrinks to fit: progress reaches 1 at whichever limit comes first, without a jump, so
    that a learning rate that follows it always anneals. The state is two numbers and goes into the checkpoint.

    Raises `ValueError`: neither minutes nor steps were given, or both.
    """

    longest = 20.0

    def __init__(
        self,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        deadline: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (minutes is None) == (steps is None):
            raise ValueError(f"give minutes or steps, not both and not neither: minutes={minutes}, steps={steps}")
        self._seconds = None if minutes is None else minutes * 60
        self._steps = steps
        self._deadline = deadline
        self._clock = clock
        self._last = clock()
        self.active = 0.0
        self.progress = 1.0 if minutes == 0 else 0.0

    def advance(self) -> float:
        """Account for one finished step; return the new progress."""
        now = self._clock()
        spent = min(now - self._last, self.longest)
        self._last = now
        self.active += spent
        if self._steps is not None:
            self.progress = min(1.0, self.progress + 1 / self._steps)
            if 1 - self.progress < 0.5 / self._steps:
                self.progress = 1.0
            return self.progress
        assert self._seconds is not None
        left = self._seconds - self.active
        if self._deadline is not None:
            left = min(left, self._deadline - now)
        left = max(0.0, left)
        share = spent / (left + spent) if left + spent > 0 else 1.0
        self.progress = 1.0 if left <= 0 else self.progress + (1 - self.progress) * share
        return self.progress

    def restart_clock(self) -> None:
        """Forget the time since the last step (after loading data or a checkpoint)."""
        self._last = self._clock()

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"active": self.active, "progress": self.progress}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint. A finished run goes on if it may now use more minutes than it did."""
        self.active, self.progress = state["active"], state["progress"]
        over = self._deadline is not None and self._deadline <= self._clock()
        if self.progress >= 1 and self._seconds is not None and self.active < self._seconds and not over:
            self.progress = self.active / self._seconds
