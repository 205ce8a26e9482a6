"""Attention in 8 bits: where there are enough tokens, its numbers, what it costs, and when it stays in floats."""

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import pytest

from pocketxl.engine.specs import Role
from pocketxl.export.quantize.attention_error import attention_error
from pocketxl.export.quantize.attention_numbers import attention_numbers
from pocketxl.export.quantize.attention_places import SHARE_STEP, has_tokens, least_side
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.quantize.choose import Layer, Measured, choose, measure_layers
from pocketxl.export.quantize.formats import A8_SCORES, A8_SCORES_TOKEN, FLOAT16, FLOAT32, FP8_TENSOR, Kind
from pocketxl.export.quantize.query_keys import QueryKeys
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.score_blocks import LARGEST_VALUE, ScoreBlocks
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted

from ...fixtures.calibration import shown
from ...fixtures.smallest import SMALLEST

WIDTH, HEADS, TOKENS = 128, 2, 96
NAME = "mid_block.attentions.0.transformer_blocks.0.attn1"
PARTS = ("to_q", "to_k", "to_v")


def block(name: str) -> str:
    return f"{name}.attentions.0.transformer_blocks.1.attn1"


@pytest.mark.parametrize(
    ("name", "levels", "side"),
    [
        (block("down_blocks.1"), 3, 12),  # SDXL's base: 640 channels, half the latents' side
        (block("down_blocks.2"), 3, 24),
        (block("mid_block"), 3, 24),
        (block("up_blocks.0"), 3, 24),
        (block("up_blocks.1"), 3, 12),
        (block("mid_block"), 4, 48),  # the refiner's
        (block("up_blocks.2"), 4, 12),
    ],
)
def test_the_least_picture_has_32_tokens(name: str, levels: int, side: int) -> None:
    assert least_side([name], levels) == side
    assert least_side([name, block("down_blocks.1")], levels) == max(side, 12)
    assert has_tokens(name, levels, 128), "of pictures of 1024 pixels, however small a part is asked for"
    assert has_tokens(name, levels, 16) == (side == 12), "the miniature's"
    assert least_side([], levels) == 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Attention:
    """Weights of queries, keys and values, and what they have shown."""

    weights: dict[str, np.ndarray]
    seen: Calibration
    inputs: np.ndarray


def attention(scores: float = 1.0) -> Attention:
    """Scores are of that order."""
    random = np.random.default_rng(0)
    x = random.standard_normal((TOKENS, WIDTH), np.float32)
    sizes = (scores**0.5, scores**0.5, 1.0)
    weights = {
        f"{NAME}.{part}.weight": random.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(size / WIDTH**0.5)
        for part, size in zip(PARTS, sizes, strict=True)
    }
    layers = {name.removesuffix(".weight"): shown(x, x @ weight.T) for name, weight in weights.items()}
    return Attention(weights=weights, seen=Calibration(layers=layers), inputs=x)


def test_steps_are_powers_of_two_that_hold_two_to_four_times_what_was_seen() -> None:
    made = attention()
    steps = attention_numbers(NAME, FP8_TENSOR, made.seen, HEADS)
    assert isinstance(steps, tuple)
    for part, step in zip(PARTS, steps, strict=True):
        assert np.frexp(step)[0] == 0.5
        assert 2 <= 448 * step / made.seen.layers[f"{NAME}.{part}"].output_size.max() < 4
    assert attention_numbers("mid_block.attn9", FP8_TENSOR, made.seen, HEADS) is None


def e4m3(x: np.ndarray, step: float) -> np.ndarray:
    return (x / step).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(step)


def mixed(parts: list[np.ndarray], steps: tuple[float, ...] | None) -> np.ndarray:
    """Attention head by head, by another library's 8-bit floats."""
    found = []
    for head in range(HEADS):
        columns = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        query, key, value = (
            part[:, columns] if steps is None else e4m3(part[:, columns], steps[index])
            for index, part in enumerate(parts)
        )
        powers = np.exp(query @ key.T / (WIDTH // HEADS) ** 0.5)
        shares = powers / powers.sum(1, keepdims=True)
        found.append((shares if steps is None else e4m3(shares, SHARE_STEP)) @ value)
    return np.concatenate(found, 1)


def test_the_error_is_that_of_the_rounded_products() -> None:
    made = attention()
    steps = attention_numbers(NAME, FP8_TENSOR, made.seen, HEADS)
    assert isinstance(steps, tuple)
    weights = list(made.weights.values())
    parts = [made.inputs @ weight.T for weight in weights]
    exact = mixed(parts, None)
    expected = np.square(mixed(parts, steps) - exact).sum() / np.square(exact).sum()
    assert attention_error(weights, made.inputs, HEADS, steps) == pytest.approx(expected, rel=1e-2)
    assert 0.02**2 < expected < 0.1**2


def measured(made: Attention, *, ladder: bool = True) -> Measured:
    layer = Layer(name=NAME, kind=Kind.ATTENTION, shape=(HEADS,))
    target = TARGETS["rtx"]
    recipe = fitted(RECIPES["fp8"], target)
    return measure_layers([layer], recipe, Role.UNET, made.weights.get, made.seen, target, ladder=ladder)


def test_sharp_attention_loses_more() -> None:
    small, large = (measured(attention(scores)).options[NAME][0].error for scores in (1.0, 40.0))
    assert large > 2 * small


def test_attention_is_in_8_bits_until_a_goal_asks_for_more() -> None:
    made = attention()
    lenient = replace(RECIPES["fp8"], max_relative_error={**RECIPES["fp8"].max_relative_error, Role.UNET: 1.0})
    found, recipe = measured(made), fitted(lenient, TARGETS["rtx"])
    numbers = choose(found, recipe, Role.UNET, made.seen, goal=1.0)
    assert numbers.format(Kind.ATTENTION, NAME) == FP8_TENSOR
    assert numbers.attentions == {NAME: attention_numbers(NAME, FP8_TENSOR, made.seen, HEADS)}
    exact = choose(found, recipe, Role.UNET, made.seen, goal=1e-3)
    assert exact.format(Kind.ATTENTION, NAME) == FLOAT16
    assert not exact.attentions
    assert found.more_bits(exact)["bytes"] == 0
    assert found.more_bits(exact)["time"] == pytest.approx(1.2)
    assert len(measured(made, ladder=False).options[NAME]) == 1


def test_no_other_recipe_speaks_of_attention() -> None:
    for recipe in ("fp32", "fp16", "int8", "int8-weight", "int4-weight"):
        assert not RECIPES[recipe].format(Role.UNET, Kind.ATTENTION, NAME).quantized
        assert Kind.ATTENTION not in RECIPES[recipe].formats(Role.UNET)


def test_the_error_of_int8_scores_is_that_of_rounded_queries_and_keys() -> None:
    made = attention(scores=4.0)
    numbers = attention_numbers(NAME, A8_SCORES, made.seen, HEADS)
    assert isinstance(numbers, QueryKeys)
    weights = list(made.weights.values())
    query, key, value = (made.inputs @ weight.T for weight in weights)
    exact = mixed([query, key, value], None)
    off = mixed([*numbers.rounded(query, key), value], None) - exact
    expected = np.square(off).sum() / np.square(exact).sum()
    assert attention_error(weights, made.inputs, HEADS, numbers) == pytest.approx(expected, rel=1e-2)
    assert 1e-4**2 < expected < 0.05**2


def test_scores_are_int8_until_a_goal_asks_for_more() -> None:
    made, target = attention(), TARGETS["openvino"]
    recipe = target.suited(fitted(RECIPES["int8"], target), SMALLEST)
    layer = Layer(name=NAME, kind=Kind.ATTENTION, shape=(HEADS,))
    found = measure_layers([layer], recipe, Role.UNET, made.weights.get, made.seen, target)
    numbers = choose(found, recipe, Role.UNET, made.seen, goal=1.0)
    assert numbers.format(Kind.ATTENTION, NAME) == A8_SCORES
    assert isinstance(numbers.attentions[NAME], QueryKeys)
    exact = choose(found, recipe, Role.UNET, made.seen, goal=1e-6)
    assert exact.format(Kind.ATTENTION, NAME) == FLOAT32
    assert not exact.attentions


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_our_kernels_round_by_token_and_refuse_values_that_their_sums_cannot_hold(recipe: str) -> None:
    target, layer = TARGETS["cuda"], Layer(name=NAME, kind=Kind.ATTENTION, shape=(HEADS,))
    suited = target.suited(fitted(RECIPES[recipe], target), SMALLEST)
    made = attention()
    found = measure_layers([layer], replace(suited, bits={}), Role.UNET, made.weights.get, made.seen, target)
    first, last = found.options[NAME]
    assert (first.format, last.format) == (A8_SCORES_TOKEN, FLOAT16)
    assert 0 < first.error < 0.02**2
    assert first.seconds < last.seconds
    numbers = choose(found, suited, Role.UNET, made.seen, goal=1.0)
    assert isinstance(numbers.attentions[NAME], ScoreBlocks)
    assert numbers.format(Kind.ATTENTION, NAME) == A8_SCORES_TOKEN

    large = made.inputs @ made.weights[f"{NAME}.to_v.weight"].T
    large *= 2 * LARGEST_VALUE / np.abs(large).max()
    seen = Calibration(layers={**made.seen.layers, f"{NAME}.to_v": shown(made.inputs, large)})
    for ladder in (True, False):
        found = measure_layers([layer], suited, Role.UNET, made.weights.get, seen, target, ladder=ladder)
        assert found.options[NAME][0].error == np.inf
    found = measure_layers([layer], suited, Role.UNET, made.weights.get, seen, target)
    numbers = choose(found, suited, Role.UNET, seen, goal=1.0)
    assert numbers.format(Kind.ATTENTION, NAME) == FLOAT16


@pytest.mark.parametrize("recipe", ["fp16", "int8-weight", "int4-weight"])
def test_scores_are_floats_where_activations_are(recipe: str) -> None:
    target = TARGETS["cuda"]
    suited = target.suited(fitted(RECIPES[recipe], target), SMALLEST)
    assert suited.format(Role.UNET, Kind.ATTENTION, NAME) == FLOAT16
