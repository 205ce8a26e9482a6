"""Who gets more bits: the cheapest choice that holds the goal, never more than the budget."""

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.export.quantize.assign import Option, assign
from pocketxl.export.quantize.formats import FLOAT32, W4, W8, W8A8_DYNAMIC

FORMATS = (W8A8_DYNAMIC, W8, FLOAT32)


def options(errors: Sequence[float], seconds: Sequence[float] = (1, 2, 4)) -> tuple[Option, ...]:
    sizes = (1.0, 1.0, 4.0)
    rows = zip(FORMATS, errors, seconds, sizes, strict=True)
    return tuple(Option(format=f, error=e, seconds=s, bytes=b) for f, e, s, b in rows)


def formats(chosen: dict[str, Option]) -> dict[str, object]:
    return {name: option.format for name, option in chosen.items()}


def test_nothing_changes_where_the_goal_holds() -> None:
    layers = {"a": options((1, 0.5, 0)), "b": options((2, 1, 0))}
    assert formats(assign(layers, goal=3)) == {"a": W8A8_DYNAMIC, "b": W8A8_DYNAMIC}


def test_the_layer_that_gains_most_for_its_price_comes_first() -> None:
    layers = {
        "worst": options((10, 9.9, 0)),
        "small": options((1, 0.1, 0)),
        "dear": options((10, 1, 0), (50, 100, 200)),
    }
    assert formats(assign(layers, goal=11.5)) == {"worst": FLOAT32, "small": W8A8_DYNAMIC, "dear": W8A8_DYNAMIC}
    assert formats(assign(layers, goal=0)) == dict.fromkeys(layers, FLOAT32), "all that helps, if nothing else does"


def test_a_format_that_loses_more_is_never_taken() -> None:
    assert formats(assign({"a": options((1, 5, 2))}, goal=0)) == {"a": W8A8_DYNAMIC}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0, 8))
def test_a_budget_is_never_exceeded_and_what_fits_is_used(errors: list[tuple[float, float]], more: float) -> None:
    layers = {
        f"{i}": (
            Option(format=W4, error=high + low, seconds=1, bytes=1),
            Option(format=W8, error=low, seconds=1, bytes=2),
        )
        for i, (high, low) in enumerate(errors)
    }
    budget = len(layers) + more
    chosen = assign(layers, goal=0, budget=budget)
    assert sum(option.bytes for option in chosen.values()) <= budget
    gains = sorted((high for high, _ in errors), reverse=True)
    least = sum(high + low for high, low in errors) - sum(gains[: int(more)])
    assert sum(option.error for option in chosen.values()) == pytest.approx(least, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0.1, 1), st.floats(0, 0.1)), min_size=1, max_size=4), st.floats(0, 2))
def test_the_goal_holds_whenever_it_can(errors: list[tuple[float, float]], goal: float) -> None:
    layers = {f"{i}": options((first, second, 0)) for i, (first, second) in enumerate(errors)}
    chosen = assign(layers, goal=goal)
    assert sum(option.error for option in chosen.values()) <= goal + 1e-9
    cheapest = min(
        sum(o.seconds for o in combination)
        for combination in product(*layers.values())
        if sum(o.error for o in combination) <= goal + 1e-9
    )
    assert sum(option.seconds for option in chosen.values()) <= cheapest + 3 * len(layers)


def test_no_layers() -> None:
    assert assign({}, goal=0) == {}
