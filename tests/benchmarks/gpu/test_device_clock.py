"""The time of our graph alone: what lies between two events on the stream on which the driver replays it."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.device_clock import device_clock

STREAM = 77


@dataclass
class Driver:
    log: list[tuple[str, int]] = field(default_factory=list)
    stream: int = STREAM

    def replay(self, graph: int) -> None:
        self.log.append(("graph", graph))


@dataclass
class Device:
    driver: Driver = field(default_factory=Driver)


class Event:
    """Its time is its place in the log, in milliseconds."""

    def __init__(self, log: list[tuple[str, int]]) -> None:
        self.log, self.at = log, -1

    def record(self, stream: int) -> None:
        self.at = len(self.log)
        self.log.append(("event", stream))

    def synchronize(self) -> None:
        assert self.at >= 0, "asked before a call"

    def elapsed_time(self, end: Any) -> float:
        return float(end.at - self.at)


def test_events_stand_around_the_graph_on_its_stream() -> None:
    device = Device()
    clock = device_clock(device, lambda: Event(device.driver.log))
    assert clock is not None
    device.driver.replay(5)
    assert device.driver.log == [("event", STREAM), ("graph", 5), ("event", STREAM)]
    assert clock() == 2e-3


def test_a_device_that_replays_nothing_has_no_clock() -> None:
    assert device_clock(object()) is None
