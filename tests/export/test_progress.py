"""How much of a build is done, over all of its stages."""

from collections.abc import Iterator
from typing import Any, ClassVar, cast

import pytest
import torch

from pocketxl.engine.progress import ProgressEvent, track
from pocketxl.export.progress import Counted, Share, expected, steps_of, whole


def build_events(events: list[ProgressEvent]) -> list[tuple[int, bool]]:
    return [(event.step, event.done) for event in events if event.stage == "build"]


def test_stages_count_by_their_seconds() -> None:
    events: list[ProgressEvent] = []
    shares = {"lower": Share(total=10, seconds=3.0), "reference": Share(total=2, seconds=35.0)}
    with whole(lambda event: events.append(event), shares) as progress:
        with track(progress, "lower", total=10) as lowered:
            lowered(5)
            with track(progress, "reference", total=2) as stepped:
                stepped()
                stepped()
            lowered(5)
        with track(progress, "publish", total=1) as published:
            published()
    assert build_events(events) == [(0, False), (15, False), (50, False), (85, False), (99, False), (100, True)]
    assert {event.total for event in events if event.stage == "build"} == {100}
    assert [event.stage for event in events].count("publish") == 3, "other stages are handed on"


def test_what_was_done_before_is_not_in_the_whole() -> None:
    events: list[ProgressEvent] = []
    shares = {"lower": Share(total=10, seconds=1.0), "reference": Share(total=10, seconds=9.0)}
    with whole(lambda event: events.append(event), shares) as progress:
        with track(progress, "reference", total=0):
            pass
        with track(progress, "lower", total=4) as lowered:
            lowered(1)
            lowered(1)
    assert build_events(events)[:3] == [(0, False), (25, False), (50, False)]


def test_a_build_that_fails_does_not_end_at_a_hundred() -> None:
    events: list[ProgressEvent] = []
    with pytest.raises(KeyboardInterrupt), whole(lambda event: events.append(event), {}):
        raise KeyboardInterrupt
    assert build_events(events) == [(0, False), (0, True)]


def test_only_what_runs_here_is_gated() -> None:
    sizes = {"weights": 100, "unet": 80, "steps": 12, "pixels": 512 * 512}
    here, elsewhere = expected(**sizes, gated=True), expected(**sizes, gated=False)
    assert list(here) == ["lower", "reference", "check: pictures"]
    assert list(elsewhere) == ["lower", "reference"]
    assert all(share.total > 0 and share.seconds > 0 for share in here.values())


def test_a_pipeline_s_steps_are_those_of_one_stage_over_all_pictures() -> None:
    told: list[tuple[int, str]] = []
    forward = steps_of(lambda count=1, detail="": told.append((count, detail)))
    for _ in range(2):
        with track(forward, "encode", total=1) as encoded:
            encoded()
        with track(forward, "denoise", total=3) as stepped:
            for _ in range(3):
                stepped()
    assert sum(count for count, _ in told) == 6
    assert {detail for _, detail in told} == {"encode", "denoise"}


class Zeros:
    """Two weights of 10 and 5 bytes."""

    sizes: ClassVar = {"a": 10, "b": 5}

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def nbytes(self, name: str) -> int:
        return self.sizes[name]

    def tensor(self, name: str) -> torch.Tensor:
        return torch.zeros(self.sizes[name])


@pytest.mark.parametrize(("share", "told"), [(1.0, [10, 0, 5, 0]), (0.3, [3, 0, 1, 11])])
def test_a_compiler_s_share_of_the_bytes_is_told_when_it_is_done(share: float, told: list[int]) -> None:
    heard: list[int] = []
    weights = Counted(cast(Any, Zeros()), heard.append, share=share)
    for name in "aab":
        weights.tensor(name)
    weights.finish()
    assert heard == told
