"""How long the rest of a call takes, over all its stages and pictures, guessed from what was measured so far."""

import time
from collections.abc import Callable

DECODE_IN_STEPS = 2.0
"""What a picture's decoding is taken for until one was measured: at full size on a processor 54 s, a step 28."""


class Remaining:
    """Told every progress event of a call that makes `pictures` one after another: the stages `denoise` and `decode`.

    The first step of each stage is not timed, because components are loaded before it.
    """

    def __init__(self, pictures: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.pictures = pictures
        self.finished = 0
        self._clock = clock
        self._began = self._last = 0.0
        """When this picture's denoising began, and when its last step ended."""
        self._step = self._total = 0
        self._walking = False
        self._steps, self._walked = 0, 0.0
        """Steps that were timed, and the seconds that they took."""
        self._decoding: float | None = None
        self._whole: float | None = None
        """A finished picture's seconds."""

    @property
    def current(self) -> int:
        """The picture that is being made, from 1."""
        return min(self.finished + 1, self.pictures)

    def told(self, stage: str, step: int, total: int | None, *, done: bool) -> float | None:
        """Take one event (`ProgressEvent` says what its fields are); the seconds left in all, None while unknown."""
        now = self._clock()
        if stage == "denoise":
            if step == 0:
                self._began = now
            elif step > 1 and not done:
                self._steps, self._walked = self._steps + 1, self._walked + now - self._last
            self._last, self._step, self._total, self._walking = now, step, total or 0, True
        elif stage == "decode" and done:
            self.finished, self._walking = self.finished + 1, False
            self._decoding, self._whole = now - self._last, now - self._began
            return self._with_others(0.0, self.pictures - self.finished)
        return self._with_others(self._this(stage, now), self.pictures - self.finished - 1)

    def _this(self, stage: str, now: float) -> float | None:
        """Seconds left of the picture that is being made."""
        if stage == "decode":
            decoding = self._guessed_decoding()
            return None if decoding is None else max(decoding - (now - self._last), 0.0)
        if self._walking and self._steps:
            return (self._total - self._step) * self._walked / self._steps + (self._guessed_decoding() or 0.0)
        return None if self._whole is None else max(self._whole - (now - self._began), 0.0)

    def _with_others(self, this: float | None, others: int) -> float | None:
        if this is None or others <= 0:
            return this
        each = self._whole
        if each is None and self._steps:
            each = self._total * self._walked / self._steps + (self._guessed_decoding() or 0.0)
        return None if each is None else this + others * each

    def _guessed_decoding(self) -> float | None:
        if self._decoding is None and self._steps:
            return DECODE_IN_STEPS * self._walked / self._steps
        return self._decoding


def in_words(seconds: float) -> str:
    """`about 40 s left`, `about 3 min left`, `about 1 h 20 min left`: no more exact than a guess is."""
    if seconds < 55:
        return f"about {max(5 * round(seconds / 5), 5)} s left"
    minutes = max(round(seconds / 60), 1)
    return f"about {minutes} min left" if minutes < 60 else f"about {minutes // 60} h {minutes % 60} min left"
