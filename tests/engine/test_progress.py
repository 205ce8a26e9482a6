import io
import json

import pytest

from pocketxl.engine.progress import Bars, JsonLines, ProgressEvent, Silent, track


class Recorded(list[ProgressEvent]):
    def __call__(self, event: ProgressEvent) -> None:
        self.append(event)


def test_a_stage_begins_at_zero_and_ends_done() -> None:
    events = Recorded()
    with track(events, "denoise", total=3) as advance:
        advance()
        advance(2, detail="sigma 0.1")
    assert [(e.stage, e.step, e.total, e.unit, e.done) for e in events] == [
        ("denoise", 0, 3, "step", False),
        ("denoise", 1, 3, "step", False),
        ("denoise", 3, 3, "step", False),
        ("denoise", 3, 3, "step", True),
    ]
    assert events[2].detail == "sigma 0.1"
    assert [e.seconds for e in events] == sorted(e.seconds for e in events)


def test_a_stage_that_fails_still_ends() -> None:
    def fail() -> None:
        with track(events, "quantize", total=5) as advance:
            advance()
            raise KeyError

    events = Recorded()
    with pytest.raises(KeyError):
        fail()
    assert events[-1].done
    assert events[-1].step == 1


def test_json_lines_have_rate_and_remaining_time() -> None:
    stream = io.StringIO()
    with track(JsonLines(stream), "build", total=4, unit="layer") as advance:
        for _ in range(4):
            advance(detail="conv_in")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 4]
    assert {line["event"] for line in lines} == {"progress"}
    assert lines[0]["rate"] is None
    assert lines[0]["remaining"] is None
    second = lines[2]
    assert second["rate"] == pytest.approx(2 / second["seconds"])
    assert second["remaining"] == pytest.approx(second["seconds"])
    assert lines[-1]["done"] is True


def test_bars_show_stage_count_and_rate() -> None:
    stream = io.StringIO()
    with track(Bars(stream, always=True), "denoise", total=20) as advance:
        for _ in range(20):
            advance()
    last = stream.getvalue().split("\r")[-1]
    assert "denoise" in last
    assert "20/20" in last
    assert "step/s" in last
    assert last.endswith("\n")


def test_bars_draw_nothing_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with track(Bars(stream), "denoise", total=2) as advance:
        advance()
    assert stream.getvalue() == ""


def test_bars_keep_nested_stages_apart() -> None:
    stream = io.StringIO()
    bars = Bars(stream, always=True)
    with track(bars, "build", total=1, unit="stage") as stage, track(bars, "layers", total=2, unit="layer") as layer:
        layer(2)
        stage()
    assert "layers" in stream.getvalue()
    assert "build" in stream.getvalue()
    assert not bars._bars


def test_silent_takes_events() -> None:
    with track(Silent(), "x") as advance:
        advance()


def test_several_pictures_are_numbered_with_the_time_left_in_all() -> None:
    lines, drawn = io.StringIO(), io.StringIO()
    json_lines, bars = JsonLines(lines, pictures=2), Bars(drawn, always=True, pictures=2)

    def both(event: ProgressEvent) -> None:
        json_lines(event)
        bars(event)

    for _ in range(2):
        with track(both, "denoise", total=3) as step, track(both, "load", total=9, unit="B", detail="base/unet"):
            step()
            step()
            step()
        with track(both, "decode", total=1, unit="image") as picture:
            picture()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [t["picture"] for t in told if t["stage"] == "decode"] == [1, 1, 1, 2, 2, 2]
    assert told[0]["remaining_total"] is None
    assert told[-1]["remaining_total"] == 0
    assert all(t["remaining_total"] is not None for t in told[3:])
    assert all(part in drawn.getvalue() for part in ("picture 1/2 · denoise", "picture 2/2 · decode", "load base/unet"))


def test_a_bar_tells_the_time_left_in_all() -> None:
    drawn = io.StringIO()
    with track(Bars(drawn, always=True, pictures=1), "denoise", total=3) as step:
        step()
        step(2)
    assert "about 5 s left" in drawn.getvalue()
    assert "picture" not in drawn.getvalue()
