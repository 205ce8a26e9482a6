"""A VAE in half precision: every tensor can be scaled without a bit's difference, and is where it must be."""

import copy
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.export.checkpoint.configuration import read_json
from pocketxl.export.checkpoint.vae_configuration import vae_architecture
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.quantize.half_places import Place, find_places
from pocketxl.export.quantize.half_range import (
    LARGEST_HALF,
    ROOM,
    HalfRange,
    beyond_half,
    find_exponents,
    halvings,
    largest_outputs,
    scaled_places,
)
from pocketxl.export.quantize.smoothing import Smoothed
from pocketxl.export.reference.streamed import StreamedModule

from ...fixtures.calibration import observe
from ...fixtures.compare import relative_error
from ...fixtures.networks import VaePair, adopt, json_file, unet_pair, vae_pair
from ...fixtures.onnx_run import StateDict, run_onnx
from ...fixtures.wide_vae import widened
from ...tolerances import HALF_RELATIVE, HALF_ROUNDED_RELATIVE

State = Mapping[str, torch.Tensor]
MINIATURE = Path(__file__).resolve().parents[3] / "export/miniature/weights/base/vae"


@pytest.fixture(scope="module")
def pair() -> VaePair:
    torch.manual_seed(0)
    return vae_pair()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1)


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def scaled(module: Any, state: State, made: HalfRange) -> Any:
    """The module with its weights and eps."""
    weights = Smoothed(StateDict(state), made.smoothing)
    return adopt(made.applied(copy.deepcopy(module)), {name: weights.tensor(name) for name in module.state_dict()})


def test_every_tensor_between_two_layers_is_in_one_place(pair: VaePair) -> None:
    modules = dict(pair.theirs.named_modules())
    layers = {n for n, m in modules.items() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))}
    norms = {n for n, m in modules.items() if isinstance(m, torch.nn.GroupNorm)}
    places = find_places(list(pair.theirs.state_dict()))
    written = Counter(layer for place in places for layer in (*place.writers, *place.against))
    assert written == dict.fromkeys(layers - {"quant_conv", "decoder.conv_out"}, 1)
    assert Counter(norm for place in places for norm in place.norms) == dict.fromkeys(norms, 1)


def test_a_decoder_alone_has_the_places_of_its_half_and_other_networks_have_none(pair: VaePair) -> None:
    whole = find_places(list(pair.theirs.state_dict()))
    half = {place for place in whole if not place.writers[0].startswith("encoder.")}
    assert set(find_places(list(pair.ours.state_dict()))) == half
    assert find_places(list(unet_pair("miniature").theirs.state_dict())) == []


def test_sdxl_s_own_decoder_has_a_stream_for_each_resolution_and_each_change_of_width() -> None:
    with torch.device("meta"):
        names = list(VaeDecoder(VaeArchitecture()).state_dict())
    streams = [place for place in find_places(names) if len(place.writers) > 1 or "upsamplers" in place.writers[0]]
    assert [place.writers[0].removeprefix("decoder.up_blocks.") for place in streams] == [
        "decoder.conv_in",
        "0.upsamplers.0.conv",
        "1.upsamplers.0.conv",
        "2.resnets.0.conv_shortcut",
        "2.upsamplers.0.conv",
        "3.resnets.0.conv_shortcut",
    ]


@pytest.mark.parametrize("powers", [(4, 4), (8, 8), (-3, 9)], ids=str)
def test_it_stays_the_same_to_the_bit(pair: VaePair, powers: tuple[int, int]) -> None:
    """diffusers' own encoder and decoder; with the same factor everywhere, and with another at every place."""
    random = np.random.default_rng(0)
    state = pair.theirs.state_dict()
    exponents = {place: int(random.integers(powers[0], powers[1] + 1)) for place in find_places(list(state))}
    made = scaled_places(exponents, shapes(state))
    other = scaled(pair.theirs, state, made)
    picture, latents = torch.randn(2, 3, 40, 48), torch.randn(2, 4, 5, 6)
    for run in (lambda vae: vae.encode(picture).latent_dist.parameters, lambda vae: vae.decode(latents).sample):
        before, after = (observed(vae, run) for vae in (pair.theirs, other))
        assert torch.equal(before.pop(""), after.pop(""))
        for place, k in exponents.items():
            for layer in set(place.writers) & set(before):
                assert torch.equal(before[layer] * 2.0**-k, after[layer]), layer
    without = scaled(pair.theirs, state, HalfRange(smoothing=made.smoothing))
    assert not torch.equal(pair.theirs.decode(latents).sample, without.decode(latents).sample), "eps is at work"


def observed(vae: Any, run: Any) -> dict[str, torch.Tensor]:
    """What its layers give in a run, and under no name the run's result."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
        for name, module in vae.named_modules()
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    seen[""] = run(vae)
    for hook in hooks:
        hook.remove()
    return seen


def test_our_decoder_and_its_graph_stay_the_same_to_the_bit(pair: VaePair, tmp_path: Path) -> None:
    state, spec = pair.ours.state_dict(), pair.architecture.decoder()
    made = scaled_places(dict.fromkeys(find_places(list(state)), 8), shapes(state))
    latents = torch.randn(2, 4, 5, 6)
    other = scaled(pair.ours, state, made)
    assert torch.equal(pair.ours(latents), other(latents))
    pictures = []
    for name, module in (("plain", pair.ours), ("scaled", other)):
        (tmp_path / name).mkdir()
        master = export_master("vae", partial(_on_meta, module), spec)
        (picture,) = run_onnx(master, module.state_dict(), {"latents": latents}, tmp_path / name)
        pictures.append(picture)
    np.testing.assert_array_equal(*pictures)


def _on_meta(module: Any) -> Any:
    return copy.deepcopy(module).to("meta")


@given(st.floats(0, 2.0**120))
def test_as_few_halvings_as_leave_room(largest: float) -> None:
    k = halvings(largest)
    assert largest * ROOM * 2.0**-k <= LARGEST_HALF
    assert k == 0 or largest * ROOM * 2.0 ** (1 - k) > LARGEST_HALF


def test_each_place_is_halved_as_often_as_what_it_has_shown_asks_for() -> None:
    stream, inside = Place(writers=("conv_in", "conv2")), Place(writers=("conv1",))
    queries = Place(writers=("to_q",), against=("to_k",))
    limit = LARGEST_HALF / ROOM
    assert [halvings(size) for size in (0, limit, 1.01 * limit, 4 * limit)] == [0, 0, 1, 2]
    found = find_exponents([stream, inside], {"conv_in": limit, "conv2": limit})
    assert found == {stream: 1, inside: 0}, "what is added up, and what was not seen"
    sizes = [(limit, limit), (64 * limit, limit), (64 * limit, limit / 64), (limit, 4 * limit), (4 * limit, 0)]
    found_of = [find_exponents([queries], {"to_q": query, "to_k": key})[queries] for query, key in sizes]
    assert found_of == [0, 3, 6, -1, 2], "keys take what queries lose"


def shown(pair: VaePair, state: State, made: HalfRange, latents: torch.Tensor) -> tuple[torch.Tensor, Calibration]:
    """The decoder's picture in float32 and what its layers have shown."""
    weights = Smoothed(StateDict(state), made.smoothing)
    module = StreamedModule(lambda: made.applied(VaeDecoder(pair.architecture)), pair.architecture.decoder(), weights)
    inputs = {"latents": latents.numpy()}
    return torch.from_numpy(module(inputs)["image"]), observe(module, [inputs])


class Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every result of an operator, a norm being one, rounded to float16: infinite beyond its range.

    Inside of an operator all is float32. torch's own float16 took half an hour on a processor without instructions for
    it.
    """

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return tree_map_only(torch.Tensor, rounded, operator(*args, **(kwargs or {})))


def rounded(value: torch.Tensor) -> torch.Tensor:
    return value.half().float() if value.is_floating_point() else value


def in_half(module: Any, latents: torch.Tensor) -> torch.Tensor:
    """The picture in float16, every tensor rounded to it; norms in float32 from their input to their output."""
    module = copy.deepcopy(module).half().float()
    with torch.inference_mode(), Rounding():  # type: ignore[no-untyped-call]
        picture: torch.Tensor = module(latents.half().float())
    return picture


def cure(state: State, seen: Calibration) -> HalfRange:
    return scaled_places(find_exponents(find_places(list(state)), largest_outputs(seen)), shapes(state))


@pytest.mark.parametrize("factor", [1.0, 3e4, 1e6])
def test_a_vae_beyond_the_range_of_half_becomes_as_good_as_another(
    pair: VaePair, factor: float, tmp_path: Path
) -> None:
    state, latents = widened(pair.ours.state_dict(), factor), torch.randn(2, 4, 8, 8)
    expected, seen = shown(pair, state, HalfRange(), latents)
    made = cure(state, seen)
    same, tame = shown(pair, state, made, latents)
    assert torch.equal(same, expected)
    assert not beyond_half(tame)
    if factor == 1:
        assert not made.exponents
        assert not made.epsilons
    else:
        assert max(largest_outputs(seen).values()) > 1.5 * LARGEST_HALF
        assert beyond_half(seen)
        ill = in_half(adopt(copy.deepcopy(pair.ours), state), latents)
        assert not torch.isfinite(ill).any(), "else nothing was shown"
    whole = scaled(pair.ours, state, made)
    assert relative_error(in_half(whole, latents), expected) < HALF_ROUNDED_RELATIVE
    master = export_master(
        "vae",
        lambda: made.applied(VaeDecoder(pair.architecture)),
        pair.architecture.decoder(),
        dtype=torch.float16,
    )
    (found,) = run_onnx(master, whole.state_dict(), {"latents": latents}, tmp_path)
    assert relative_error(torch.from_numpy(found), expected) < HALF_RELATIVE


@pytest.mark.slow
def test_a_few_channels_beyond_the_range_cost_the_others_nothing() -> None:
    """SDXL's own shape, two channels of each branch 300,000 times as large: all others are halved with them."""
    architecture = VaeArchitecture()
    sdxl = VaePair(theirs=None, ours=VaeDecoder(architecture).eval().requires_grad_(False), architecture=architecture)
    latents = torch.randn(1, 4, 16, 16)

    def error(factor: float) -> tuple[float, float]:
        """Relative error of float16, as it is and scaled."""
        state = {name: tensor.clone() for name, tensor in sdxl.ours.state_dict().items()}
        for name, tensor in state.items():
            if ".conv2." in name:
                tensor[torch.randperm(len(tensor), generator=torch.Generator().manual_seed(0))[:2]] *= factor
        expected, seen = shown(sdxl, state, HalfRange(), latents)
        made = [HalfRange(), cure(state, seen)]
        plain, scaled_one = (relative_error(in_half(scaled(sdxl.ours, state, m), latents), expected) for m in made)
        return plain, scaled_one

    tame, _ = error(1)  # 4.3e-3
    ill, cured = error(3e5)  # NaN, 2.0e-3
    assert np.isnan(ill)
    assert cured < 1.25 * tame


def test_places_that_fit_are_left_alone(pair: VaePair) -> None:
    """Only the last stage is too large: what stands before it keeps all of its bits."""
    state = dict(pair.ours.state_dict())
    last = "decoder.up_blocks.3.resnets.1"
    for name in (f"{last}.conv2.weight", f"{last}.conv2.bias"):
        state[name] = state[name] * 1e6
    _, seen = shown(pair, state, HalfRange(), torch.randn(1, 4, 8, 8))
    made = cure(state, seen)
    assert list(made.exponents) == ["decoder.up_blocks.3.resnets.0.conv_shortcut"]
    assert set(made.epsilons) == {f"{last}.norm1", "decoder.conv_norm_out"}


def test_the_miniature_needs_none() -> None:
    state = {n: t.float() for n, t in load_file(MINIATURE / "diffusion_pytorch_model.safetensors").items()}
    assert find_places(list(state))
    architecture = vae_architecture(json_file(read_json(MINIATURE / "config.json")))
    mini = VaePair(theirs=None, ours=adopt(VaeDecoder(architecture), state), architecture=architecture)
    _, seen = shown(mini, mini.ours.state_dict(), HalfRange(), 3 * torch.randn(1, architecture.latent_channels, 8, 8))
    assert 1 < max(largest_outputs(seen).values()) < LARGEST_HALF / ROOM
    assert cure(mini.ours.state_dict(), seen).exponents == {}
