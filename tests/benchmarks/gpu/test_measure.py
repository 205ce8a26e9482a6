"""Time and memory as torch tells them on a GPU, which plays its part here."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import captured as capturing
from benchmarks.gpu import measure as measuring
from benchmarks.gpu.calls import Calls
from benchmarks.gpu.captured import captured
from benchmarks.gpu.cases import cases
from benchmarks.gpu.inputs import inputs_of
from benchmarks.gpu.measure import LEAST, Memory, measure
from benchmarks.gpu.networks import Network
from benchmarks.gpu.systems import Ready

TOTAL = 1000


class Card:
    """A GPU with numbers for what it holds, and a clock that counts events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allocated, self.reserved, self.peak, self.used, self.ticks = 100, 120, 0, 200, 0
        for name, value in {
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
            "memory_allocated": lambda: self.allocated,
            "memory_reserved": lambda: self.reserved,
            "reset_peak_memory_stats": lambda: None,
            "max_memory_allocated": lambda: self.peak,
            "mem_get_info": lambda: (TOTAL - self.used, TOTAL),
            "Event": self.event,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def event(self, *, enable_timing: bool) -> "Event":
        assert enable_timing
        return Event(self)


class Event:
    """What torch's events do, in ticks of a millisecond."""

    def __init__(self, card: Card) -> None:
        self.card, self.at = card, 0

    def record(self) -> None:
        self.card.ticks += 1
        self.at = self.card.ticks

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: "Event") -> float:
        return float(end.at - self.at)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setattr(measuring, "ENOUGH", 0)
    return Card(monkeypatch)


def predicting(card: Card, peak: int) -> Ready:
    def predict(latents: Tensor, step: int) -> Tensor:
        card.ticks += 4
        card.peak = peak
        return latents

    return Ready(latents=torch.ones(1), predict=predict)


def test_torchs_time_lies_between_events_and_its_memory_is_beyond_what_was_there(card: Card) -> None:
    memory = Memory("cuda")
    card.used, card.allocated = 700, 400
    found = measure(predicting(card, peak=600), 1, memory, device="cuda", on_the_host=False)
    assert found.seconds == 5e-3  # four ticks of work and the last event's own
    assert (found.peak_device_bytes, found.device_used_bytes) == (500, 500)


def test_what_a_graph_keeps_counts_although_no_tensor_holds_it(card: Card) -> None:
    memory = Memory("cuda")
    card.reserved = 900
    found = measure(predicting(card, peak=300), 1, memory, device="cuda", on_the_host=False)
    assert found.peak_device_bytes == 800


def test_of_another_runtime_all_is_the_drivers_count(card: Card) -> None:
    memory = Memory("cuda")
    card.used = 650
    found = measure(predicting(card, peak=0), 1, memory, device="cuda", on_the_host=True)
    assert (found.peak_device_bytes, found.device_used_bytes) == (450, 450)


def test_a_loop_has_enough_steps_to_warm_up_in_one_go(card: Card) -> None:
    steps: list[int] = []

    def predict(latents: Tensor, step: int) -> Tensor:
        steps.append(step)
        return latents

    ready = Ready(latents=torch.ones(1), predict=predict)
    measure(ready, 5, Memory("cuda"), device="cuda", on_the_host=True)
    assert len(steps) == 5 * (1 + LEAST + 1)


def test_a_graph_reads_what_each_call_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graphs:
        """Runs again what a graph would: on the places, whatever they hold by then."""

        def record(self, work: Sequence[Callable[[], object]]) -> Callable[[], object]:
            return lambda: [item() for item in work]

    monkeypatch.setattr(capturing, "CudaGraphs", Graphs)
    case, network = cases(["loop_1024_30"], tiny=True)[0], Network("base", "cpu", tiny=True)
    inputs = inputs_of(case, network)
    with torch.no_grad():
        calls = Calls(network.module(torch.float32), inputs, torch.float32)
        replayed = captured(calls, torch.zeros_like(inputs.latents))
        for step in (0, 2, 1):
            assert torch.equal(replayed(inputs.latents, step), calls(inputs.latents, step))
        assert not torch.equal(calls(inputs.latents, 0), calls(inputs.latents, 2))
