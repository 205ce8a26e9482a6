"""When a kept feature holds, on a U-Net that says which it was given."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.deep_features import FEATURE, DeepFeatures
from pocketxl.engine.errors import NumericError
from pocketxl.engine.runners.base import Held, HostHeld

HELD = HostHeld({})


class Counting:
    """Its feature is the number of the call that made it, its prediction the feature."""

    name = "base/unet"

    def __init__(self) -> None:
        self.made = 0.0

    def __call__(self, inputs: Any, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Any]:
        if FEATURE in inputs:
            return {"prediction": inputs[FEATURE]}
        self.made += 1
        return {"prediction": np.array([self.made]), FEATURE: np.array([self.made], np.float32)}


def asked(features: DeepFeatures, unet: Any, evaluation: int, place: tuple[int, int] = (0, 0), of: object = "a") -> int:
    """Which whole call's feature an evaluation is made with."""
    return int(features.ask(unet, {}, HELD, place=place, evaluation=evaluation, made_of=of)[0])


def test_every_so_many_evaluations_are_whole() -> None:
    features, unet = DeepFeatures(3), Counting()
    assert [asked(features, unet, evaluation) for evaluation in range(8)] == [1, 1, 1, 2, 2, 2, 3, 3]


def test_each_place_has_its_own() -> None:
    features, unet = DeepFeatures(2), Counting()
    places = [(0, 0), (0, 1), (1, 0)]
    assert [asked(features, unet, 0, place) for place in places] == [1, 2, 3]
    assert [asked(features, unet, 1, place) for place in reversed(places)] == [3, 2, 1]


def test_one_that_begins_or_changes_between_holds_until_the_next_whole_evaluation() -> None:
    features, unet = DeepFeatures(4), Counting()
    assert [asked(features, unet, evaluation, of="ab"[evaluation > 1]) for evaluation in range(6)] == [1, 1, 2, 2, 3, 3]


def test_one_that_rested_is_not_taken_up_again() -> None:
    features, unet = DeepFeatures(3), Counting()
    assert [asked(features, unet, evaluation) for evaluation in (0, 4, 5)] == [1, 2, 2]


def test_what_is_dropped_is_made_anew() -> None:
    features, unet = DeepFeatures(3), Counting()
    assert asked(features, unet, 0) == asked(features, unet, 1) == 1
    features.drop()
    assert asked(features, unet, 2) == 2


def test_with_interval_1_nothing_is_kept_or_asked_for() -> None:
    features = DeepFeatures(1)

    def plain(inputs: Any, held: Held | None = None) -> dict[str, Any]:
        assert FEATURE not in inputs
        return {"prediction": np.array([7.0])}

    assert [asked(features, plain, evaluation) for evaluation in range(3)] == [7, 7, 7]


def test_nan_is_an_error_before_an_integer_kernel_makes_a_number_of_it() -> None:
    class Broken(Counting):
        def __call__(self, *args: Any, **keywords: Any) -> dict[str, Any]:
            return {**super().__call__(*args, **keywords), FEATURE: np.array([np.nan], np.float32)}

    with pytest.raises(NumericError, match=FEATURE):
        asked(DeepFeatures(2), Broken(), 0)
