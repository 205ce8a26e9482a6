"""The training loop that base and refiner share: optimizer, average of weights, checkpoints, progress."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.errors import IncompatibleError, IntegrityError, NumericError
from .budget import Budget

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train."""

    learning_rate: float = 1e-3
    warm_up: int = 100
    batch: int = 64  # of each worker
    ema_decay: float = 0.998
    clip: float = 1.0
    save_every: float = 240.0  # seconds
    report_every: float = 600.0
    log_every: int = 10
    seed: int = 0
    workers: int = 1  # threads that each take a part of the batch; see `Trainer`


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: a resumed run draws what an uninterrupted one would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class Trainer:
    """Trains `modules` on `loss` until the budget is spent.

    `modules`: what is trained; keys become the names in the checkpoint. `loss`: called with (draw, progress), returns
    the loss of one batch, a scalar; draw numbers the batches. `budget`: says how far the run is. `checkpoint`: file to
    resume from and to save to; replaced atomically. `report`: called every few minutes, with the averaged weights in
    `modules`, with (step, progress). `after_step`: called after each update with the progress.

    With several workers a step averages the gradients of as many calls of `loss`, each in a thread of its own. On a CPU
    that others use too this beats threads inside each operation, which wait for one another thousands of times a step.
    """

    def __init__(
        self,
        modules: nn.ModuleDict,
        loss: Callable[[int, float], Tensor],
        budget: Budget,
        settings: TrainingSettings,
        checkpoint: Path,
        report: Callable[[int, float], None] | None = None,
        after_step: Callable[[float], None] | None = None,
    ) -> None:
        self.modules = modules
        self.loss = loss
        self.budget = budget
        self.settings = settings
        self.checkpoint = checkpoint
        self.report = report
        self.after_step = after_step
        self.step = 0
        self.samples = 0
        self._parameters = list(modules.parameters())
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.average = [parameter.detach().clone() for parameter in self._parameters]
        self._stop = False
        self._pool = ThreadPoolExecutor(settings.workers) if settings.workers > 1 else None
        if checkpoint.exists():
            self._load()

    def run(self) -> bool:
        """Train; True when the budget is spent, False when SIGTERM or SIGINT asked to stop (state is saved)."""
        previous = {number: signal.signal(number, self._ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return self._run()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _run(self) -> bool:
        self.budget.restart_clock()
        saved = reported = time.monotonic()
        smooth: float | None = None
        since, since_samples = time.monotonic(), self.samples
        while self.budget.progress < 1 and not self._stop:
            value = self._update()
            if not math.isfinite(value):
                raise NumericError(f"the loss became {value} at step {self.step}; resume with a lower learning rate")
            smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
            self.step += 1
            self.samples += self.settings.batch * self.settings.workers
            progress = self.budget.advance()
            now = time.monotonic()
            if self.step % self.settings.log_every == 0:
                rate = (self.samples - since_samples) / (now - since)
                _log.info(
                    "step %d  %.1f %%  %dk samples  loss %.4f  %.0f/s  active %.1f min",
                    self.step, 100 * progress, self.samples // 1000, smooth, rate,
                    self.budget.active / 60,
                )  # fmt: skip
                since, since_samples = now, self.samples
            if now - saved > self.settings.save_every:
                self.save()
                saved = now
            if self.report and now - reported > self.settings.report_every:
                with self.averaged():
                    self.report(self.step, progress)
                reported = since = time.monotonic()
                since_samples = self.samples
        self.save()
        return not self._stop

    def _update(self) -> float:
        settings = self.settings
        progress = self.budget.progress
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        rate = settings.learning_rate * min(1.0, (self.step + 1) / settings.warm_up) * (0.02 + 0.98 * cosine)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._backward(progress)
        nn.utils.clip_grad_norm_(self._parameters, settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.after_step:
            self.after_step(progress)
        decay = min(settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self._parameters], 1 - decay)
        return loss

    def _backward(self, progress: float) -> float:
        """Leave the gradient of the mean loss in the parameters; return that loss."""
        count = self.settings.workers
        draws = range(self.step * count, (self.step + 1) * count)
        results = list((self._pool.map if self._pool else map)(lambda draw: self._gradient(draw, progress), draws))
        for index, parameter in enumerate(self._parameters):
            parameter.grad = None
            for _, gradients in results:
                part = gradients[index]
                if part is not None:
                    parameter.grad = part if parameter.grad is None else parameter.grad.add_(part)
        return sum(value for value, _ in results) / count

    def _gradient(self, draw: int, progress: float) -> tuple[float, tuple[Tensor | None, ...]]:
        loss = self.loss(draw, progress)
        # Not backward(): threads would add into the same gradients at the same time.
        gradients = torch.autograd.grad(loss / self.settings.workers, self._parameters, allow_unused=True)
        return float(loss.detach()), gradients

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, `modules` hold the averaged weights and are in evaluation mode."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self._set(self.average)
        self.modules.eval()
        try:
            yield
        finally:
            self._set(kept)
            self.modules.train()

    def finish(self) -> None:
        """Leave the averaged weights in `modules` for good."""
        self._set(self.average)
        self.modules.eval()

    def save(self) -> None:
        """Write the checkpoint beside its place and rename it there: a kill never leaves half a file."""
        state = {
            "modules": self.modules.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "samples": self.samples,
            "budget": self.budget.state_dict(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def _load(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, UnpicklingError) as error:
            raise IntegrityError(
                f"{self.checkpoint} cannot be read: {error}; delete it to begin this stage anew"
            ) from error
        try:
            self.modules.load_state_dict(state["modules"])
            self.optimizer.load_state_dict(state["optimizer"])
            for mine, kept in zip(self.average, state["average"], strict=True):
                mine.copy_(kept)
            self.step = state["step"]
            self.samples = state["samples"]
            self.budget.load_state_dict(state["budget"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise IncompatibleError(f"{self.checkpoint} is of another architecture; use another work folder") from error
        _log.info("resumed %s at step %d, %.1f %%", self.checkpoint.name, self.step, 100 * self.budget.progress)

    def _set(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_([parameter.data for parameter in self._parameters], values)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop = True
