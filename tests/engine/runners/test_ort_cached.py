"""The whole network and its outermost level as one runner, on ONNX Runtime."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.deep_features import FEATURE
from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.cached import CachedRunner, cached_for, feature_of
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner

SIZES = Sizes(rows=1, tokens=77, steps=1, pixels=64 * 64)


@pytest.fixture
def plain(tiny_int8_engine: Path) -> Iterator[OrtRunner]:
    entry = read_manifest(tiny_int8_engine).components["base/unet"]
    made = OrtRunner(tiny_int8_engine, "base/unet", entry, OrtDevice(threads=1))
    yield made
    made.release()


@pytest.fixture
def both(plain: OrtRunner) -> Iterator[CachedRunner]:
    found = cached_for(plain, (), ())
    assert found is not None
    yield found
    found.release()


def feeds(runner: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What changes from call to call, and what does not."""
    lengths = {"batch": 1, "tokens": 77, "height": 8, "width": 8}
    random = np.random.default_rng(0)
    found = {
        tensor.name: random.standard_normal([lengths.get(str(side), side) for side in tensor.shape], np.float32)
        for tensor in runner.spec.inputs
    }
    return {name: found.pop(name) for name in ("latents", "time_vectors")}, found


def test_in_8_bits_the_outermost_level_says_to_the_bit_what_the_whole_and_the_plain_one_say(
    plain: OrtRunner, both: CachedRunner
) -> None:
    inputs, constant = feeds(both)
    held = both.hold(constant)
    whole = both(inputs, held)
    assert set(whole) == {"prediction", FEATURE}
    shallow = both({**inputs, FEATURE: whole[FEATURE]}, held)
    assert set(shallow) == {"prediction"}
    np.testing.assert_array_equal(shallow["prediction"], whole["prediction"])
    np.testing.assert_array_equal(plain(inputs, plain.hold(constant))["prediction"], whole["prediction"])
    other = both({**inputs, FEATURE: np.zeros_like(whole[FEATURE])}, held)["prediction"]
    assert not np.array_equal(other, whole["prediction"])


def test_it_is_one_object_loaded_and_released_as_one(plain: OrtRunner, both: CachedRunner) -> None:
    assert cached_for(plain, (), ()) is both
    states = [both.loaded]
    both.load()
    states.append(both.loaded)
    both.release()
    states.append(both.loaded)
    assert states == [False, True, False]
    assert both.spec == plain.spec
    assert feature_of(both) == both.feature
    assert feature_of(plain) is None


def test_what_takes_pairs_is_chosen_where_there_are_pairs_or_it_is_loaded(plain: OrtRunner, both: CachedRunner) -> None:
    opened = cached_for(plain, ("conv_in",), ("residuals.0", "image_key_values.0.key"))
    assert opened is not None
    assert (both.graph.file, opened.graph.file) == ("cached.onnx", "cached-open.onnx")
    assert cached_for(plain, ("no.such.layer",), ()) is None
    opened.load()
    assert cached_for(plain, (), ()) is opened
    opened.release()


def test_its_footprint_is_that_of_both(plain: OrtRunner, both: CachedRunner) -> None:
    alone, together = plain.footprint(SIZES), both.footprint(SIZES)
    assert plain.openings is not None
    shallow = plain.openings.cached[0].shallow.weight_bytes
    assert 0 < shallow < 0.5 * alone.weights
    assert together.weights >= alone.weights + shallow
    assert together.retained == together.working > alone.working


def test_a_feature_of_another_size_is_refused(both: CachedRunner) -> None:
    inputs, constant = feeds(both)
    held = both.hold(constant)
    channels = int(both.feature.shape[1])
    with pytest.raises(RequestError, match="deep_feature"):
        both({**inputs, FEATURE: np.zeros((1, channels, 8, 9), np.float32)}, held)
