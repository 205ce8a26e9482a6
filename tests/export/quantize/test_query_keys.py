"""int8 queries and keys: what is used up before rounding, and what is left of the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.export.quantize.query_keys import QueryKeys

from ...fixtures.calibration import shown
from ...tolerances import SCORES_RELATIVE

TOKENS, WIDTH, HEADS = 48, 32, 2


def numbers_of(queries: np.ndarray, keys: np.ndarray) -> QueryKeys:
    x = np.zeros((len(queries), 1), np.float32)
    return QueryKeys.of(shown(x, queries), shown(x, keys))


def drawn(seed: int, *, spread: float = 0.0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Channels whose sizes differ by powers of ten as told, other ones in queries and keys, and keys off centre."""
    random = np.random.default_rng(seed)
    size, other = (10 ** (spread * random.uniform(-0.5, 0.5, WIDTH)) for _ in "qk")
    queries = random.standard_normal((TOKENS, WIDTH)) * size
    keys = random.standard_normal((TOKENS, WIDTH)) * other + offset * random.standard_normal(WIDTH) * other
    return queries.astype(np.float32), keys.astype(np.float32)


def shares(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`[heads, tokens, tokens]`, in float64."""
    q, k = (part.astype(np.float64).reshape(len(part), HEADS, -1).swapaxes(0, 1) for part in (queries, keys))
    scores = q @ k.swapaxes(1, 2) / (WIDTH // HEADS) ** 0.5
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    found: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return found


def off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def by_one_step(values: np.ndarray) -> np.ndarray:
    """As they are, in 8 bits."""
    step = np.abs(values).max() / 127
    found: np.ndarray = np.rint(values / step) * step
    return found


@given(seed=st.integers(0, 2**31), spread=st.floats(0, 3), offset=st.floats(0, 30))
def test_balance_and_centre_change_no_share(seed: int, spread: float, offset: float) -> None:
    queries, keys = drawn(seed, spread=spread, offset=offset)
    found = numbers_of(queries, keys)
    balanced = shares(queries * found.balance, (keys - found.centre) / found.balance)
    assert off(balanced, shares(queries, keys)) < 1e-4 * (1 + offset), "float32's own rounding of larger keys"


@given(seed=st.integers(0, 2**31), spread=st.floats(0, 4), offset=st.floats(0, 30))
def test_steps_hold_all_that_was_seen(seed: int, spread: float, offset: float) -> None:
    queries, keys = drawn(seed, spread=spread, offset=offset)
    found = numbers_of(queries, keys)
    for exact, rounded, step in zip(
        (queries * found.balance, (keys - found.centre) / found.balance),
        found.rounded(queries, keys),
        (found.query_step, found.key_step),
        strict=True,
    ):
        assert np.abs(rounded - exact).max() <= step * 0.501, "nothing is cut off"
        assert np.abs(rounded / step).max() <= 127.01


@pytest.mark.parametrize(
    ("spread", "offset", "gain"),
    [(0.0, 0.0, 0.8), (0.0, 20.0, 5.0), (2.0, 0.0, 2.0), (2.0, 20.0, 5.0)],
    ids=["tame", "keys off centre", "outlier channels", "both"],
)
def test_shares_are_those_of_floats_on_stressed_keys_too(spread: float, offset: float, gain: float) -> None:
    """Beside one step for what queries and keys are."""
    queries, keys = drawn(3, spread=spread, offset=offset)
    scale = np.sqrt(shares_size(queries, keys))
    queries, keys = queries / scale, keys / scale
    exact = shares(queries, keys)
    ours = off(shares(*numbers_of(queries, keys).rounded(queries, keys)), exact)
    assert ours < SCORES_RELATIVE
    assert gain * ours < off(shares(by_one_step(queries), by_one_step(keys)), exact)


def shares_size(queries: np.ndarray, keys: np.ndarray) -> np.float32:
    """How far scores of a query differ, in the middle: by which they are made alike in all cases."""
    centred = keys - keys.mean(0)
    return np.float32(np.linalg.norm(queries, axis=1).mean() * np.linalg.norm(centred, axis=1).mean() / WIDTH)


def test_channels_without_anything_are_no_trouble() -> None:
    queries, keys = drawn(5)
    queries[:, 3] = keys[:, 3] = keys[:, 4] = 0
    found = numbers_of(queries, keys)
    assert np.isfinite(found.balance).all()
    assert found.balance.min() > 0
    nothing = numbers_of(np.zeros_like(queries), np.zeros_like(keys))
    assert np.isfinite([nothing.query_step, nothing.key_step, *nothing.balance]).all()


def test_a_step_has_room_for_what_one_run_has_beyond_the_others() -> None:
    queries, keys = drawn(6)
    x = np.zeros((TOKENS, 1), np.float32)
    runs = [shown(x, part * size) for part in (queries, keys) for size in (1.0, 1.5)]
    alone = QueryKeys.of(shown(x, queries * 1.5), shown(x, keys * 1.5))
    found = QueryKeys.of(runs[0].beside(runs[1]), runs[2].beside(runs[3]))
    assert found.query_step == pytest.approx(1.5 * alone.query_step)
    assert found.key_step > 1.4 * alone.key_step
