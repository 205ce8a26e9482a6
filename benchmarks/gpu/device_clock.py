"""What the GPU itself takes for a call of our runner: events on its stream, around the graph that it replays."""

from collections.abc import Callable
from typing import Any

import torch


def device_clock(device: Any, make_event: Callable[[], Any] | None = None) -> Callable[[], float] | None:
    """Seconds of the last replay, to be asked after a call; None for a device that replays nothing.

    `make_event`: gives what can be recorded on a stream and has `elapsed_time` (None: torch's events).
    """
    driver: Any = getattr(device, "driver", None)
    if getattr(driver, "replay", None) is None:
        return None
    if make_event is None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        stream: Any = torch.cuda.ExternalStream(driver.stream)  # type: ignore[no-untyped-call]
    else:
        begin, end, stream = make_event(), make_event(), driver.stream
    replay = driver.replay

    def timed(graph: int) -> None:
        begin.record(stream)
        replay(graph)
        end.record(stream)

    driver.replay = timed

    def seconds() -> float:
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return seconds
