"""Smoothing changes no function, undoes what was done to a checkpoint's channels, and helps where it is needed."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketxl.engine.models.clip import ClipTextEncoder
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.quantize.formats import W4, W8A8_DYNAMIC
from pocketxl.export.quantize.layer_error import layer_error
from pocketxl.export.quantize.sites import find_pairs, find_sites
from pocketxl.export.quantize.smoothing import Smoothed, Smoothing, find_smoothing, smoothing_factors
from pocketxl.export.reference.rescaled import key_value_factors, rescaled
from pocketxl.export.reference.streamed import StreamedModule

from ...fixtures.calibration import shown
from ...fixtures.networks import clip_pair, unet_pair, vae_pair
from ...fixtures.onnx_run import StateDict
from ...fixtures.smoothing import random_smoothing
from ...tolerances import SMOOTHED_RELATIVE

AMAX = arrays(np.float32, 5, elements=st.floats(2**-4, 2**4, width=32))


class Named(StateDict):
    """With the names that a checkpoint's part knows."""

    def names(self) -> list[str]:
        return sorted(self.weights)


def inputs(spec: ComponentSpec, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sizes: dict[Any, int] = {"batch": 2, "tokens": 7, "height": 16, "width": 16, "steps": 3}
    return {
        t.name: random.integers(0, 40, [sizes.get(d, d) for d in t.shape])  # type: ignore[arg-type]
        if t.dtype == "int64"
        else random.standard_normal([sizes.get(d, d) for d in t.shape], np.float32)  # type: ignore[arg-type]
        for t in spec.inputs
    }


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_a_unet_and_its_conditioner_stay_the_same_function(kind: str) -> None:
    pair = unet_pair(kind)
    architecture, state = pair.architecture, pair.theirs.state_dict()
    smoothing = random_smoothing(state)
    blocks = sum(transformer.depth for transformer in architecture.transformers())
    transformers = len(list(architecture.transformers()))
    assert len(list(find_sites(list(state)))) == 6 * blocks + transformers
    assert len(list(find_pairs(list(state)))) == 2 * blocks
    before, after = (
        {
            name: StreamedModule(partial(module, architecture), spec, weights)
            for name, module, spec in (
                ("conditioner", Conditioner, architecture.conditioner()),
                ("unet", UNet, architecture.unet()),
            )
        }
        for weights in (StateDict(state), Smoothed(StateDict(state), smoothing))
    )
    prompt = inputs(architecture.conditioner())
    plain, smooth = (modules["conditioner"](prompt) for modules in (before, after))
    ((_, expected),) = rescaled([(prompt, plain)], key_value_factors(architecture, smoothing))
    for name, array in expected.items():
        assert relative(smooth[name], array) < SMOOTHED_RELATIVE, name
    assert relative(smooth["key_values.0.value"], plain["key_values.0.value"]) > 0.1, "the factors are at work"
    latents = inputs(architecture.unet(), seed=1)
    own = {name: value for name, value in latents.items() if not name.startswith("key_values")}
    keys = {name: value for name, value in plain.items() if name.startswith("key_values")}
    found, wanted = (
        modules["unet"]({**own, **{name: side[name] for name in keys}})["prediction"]
        for modules, side in ((after, smooth), (before, plain))
    )
    assert relative(found, wanted) < SMOOTHED_RELATIVE


def test_a_text_encoder_stays_the_same_function() -> None:
    pair = clip_pair(pooled=True)
    state = pair.ours.state_dict()
    spec = pair.architecture.component()
    layers = pair.architecture.num_hidden_layers
    assert (len(list(find_sites(list(state)))), len(list(find_pairs(list(state))))) == (3 * layers, layers)
    ids = {"input_ids": inputs(spec)["input_ids"]}
    expected, found = (
        StreamedModule(lambda: ClipTextEncoder(pair.architecture), spec, weights)(ids)
        for weights in (StateDict(state), Smoothed(StateDict(state), random_smoothing(state)))
    )
    for name, array in expected.items():
        assert relative(found[name], array) < SMOOTHED_RELATIVE, name


def test_a_vae_stays_the_same_function() -> None:
    pair = vae_pair()
    state, spec = pair.ours.state_dict(), pair.architecture.decoder()
    assert len(list(find_sites(list(state)))) == 2
    latents = inputs(spec)
    expected, found = (
        StreamedModule(lambda: VaeDecoder(pair.architecture), spec, weights)(latents)
        for weights in (StateDict(state), Smoothed(StateDict(state), random_smoothing(state)))
    )
    for name, array in expected.items():
        assert relative(found[name], array) < SMOOTHED_RELATIVE, name


@given(AMAX, AMAX, arrays(np.float32, 5, elements=st.floats(2**-4, 2**4, width=32)), st.floats(0.05, 0.95))
def test_channels_that_were_scaled_and_scaled_back_come_out_as_they_were(
    taken: np.ndarray, given: np.ndarray, scale: np.ndarray, strength: float
) -> None:
    plain = smoothing_factors(taken, given, strength)
    scaled = smoothing_factors(taken * scale, given / scale, strength)
    ratio = scaled / (plain * scale)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)  # a factor for all channels changes no rounding
    assert np.exp(np.log(plain).mean()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("dead", [0.0, 1e-30])
def test_channels_that_nobody_uses_set_no_factor(dead: float) -> None:
    taken, given = np.array([1, dead, 2], np.float32), np.array([1, 1, dead], np.float32)
    for strength in (0.3, 0.9):
        factors = smoothing_factors(taken, given, strength)
        assert np.isfinite(factors).all()
        assert factors.min() > 0
    np.testing.assert_array_equal(smoothing_factors(np.zeros(2, np.float32), np.ones(2, np.float32), 0.5), [1, 1])


def part(outlier: float) -> tuple[Named, Calibration]:
    """A norm and the layer that reads it, one channel of which was scaled up and back."""
    random = np.random.default_rng(0)
    scale = np.ones(64, np.float32)
    scale[5] = outlier
    weight = random.standard_normal((48, 64), np.float32) / scale
    x = random.standard_normal((96, 64), np.float32) * scale
    name = "down.transformer_blocks.0"
    state = {f"{name}.norm3.weight": scale, f"{name}.norm3.bias": scale * 0.1, f"{name}.ff.net.0.proj.weight": weight}
    seen = Calibration(layers={f"{name}.ff.net.0.proj": shown(x, x @ weight.T)})
    return Named({key: torch.from_numpy(value) for key, value in state.items()}), seen


@pytest.mark.parametrize("format", [W8A8_DYNAMIC, W4], ids=str)
def test_outliers_cost_nothing_any_more(format: Any) -> None:
    name = "down.transformer_blocks.0.ff.net.0.proj"

    def error(outlier: float, *, smooth: bool) -> float:
        weights, seen = part(outlier)
        found = find_smoothing(weights, seen, lambda _: format) if smooth else Smoothing()
        weight = Smoothed(weights, found).tensor(f"{name}.weight").numpy()
        squared, reference = layer_error(weight, found.statistics(name, seen.layers[name]).inputs, format)
        return float(np.sqrt(squared / reference))

    tame = error(1, smooth=True)
    assert error(1, smooth=False) >= tame, "where nothing is gained, nothing is done"
    for outlier in (10, 30, 100, 1000):
        assert error(outlier, smooth=True) == pytest.approx(tame, rel=0.05)
    assert error(100, smooth=False) > 3 * tame or format == W4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_weights_of_every_kind_have_the_factors_of_their_numbers(dtype: torch.dtype) -> None:
    weights, seen = part(100)
    stored = {key: value.to(dtype) for key, value in weights.weights.items()}
    found, wanted = (
        find_smoothing(Named(state), seen, lambda _: W8A8_DYNAMIC)
        for state in (stored, {key: value.float() for key, value in stored.items()})
    )
    assert found.columns
    for layer, factors in wanted.columns.items():
        np.testing.assert_array_equal(found.columns[layer], factors)


def test_a_layer_that_keeps_its_floats_is_left_alone() -> None:
    from pocketxl.export.quantize.formats import FLOAT32

    weights, seen = part(100)
    assert not find_smoothing(weights, seen, lambda _: FLOAT32).columns
    assert not find_smoothing(weights, Calibration(), lambda _: W8A8_DYNAMIC).columns, "what was not watched"
