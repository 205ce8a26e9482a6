"""Weights are the same for all who ask; the networks are the public ones; what is exported of them lowers to calls."""

import math

import pytest
import torch

from benchmarks.gpu.cases import CASES, Name, cases
from benchmarks.gpu.component import lowered_parts, numbers_of, parts_of
from benchmarks.gpu.inputs import inputs_of
from benchmarks.gpu.networks import Network
from benchmarks.gpu.weights import RandomWeights
from pocketxl.export.targets.cuda.target import CudaTarget


def test_the_decoder_has_the_public_ones_parameters() -> None:
    shapes = Network("vae", "cpu").weights.shapes
    assert sum(map(math.prod, shapes.values())) == 49_490_199


def test_a_tensor_is_the_same_whoever_asks_and_when() -> None:
    shapes = {"a.weight": (3, 4), "b.weight": (3, 4)}
    one, other = RandomWeights(shapes=shapes, device="cpu"), RandomWeights(shapes=shapes, device="cpu")
    first = one.tensor("a.weight")
    assert torch.equal(other.tensor("b.weight"), one.tensor("b.weight"))
    assert torch.equal(other.tensor("a.weight"), first)
    assert not torch.equal(one.tensor("b.weight"), first)
    assert first.dtype == torch.float16


def test_a_layer_keeps_the_variance_of_its_input_and_norms_are_around_one() -> None:
    weights = RandomWeights(shapes={"to_q.weight": (512, 256), "n.weight": (512,), "n.bias": (512,)}, device="cpu")
    out = torch.randn(64, 256) @ weights.tensor("to_q.weight").float().T
    assert out.std() == pytest.approx(1, rel=0.1)
    assert weights.tensor("n.weight").float().mean() == pytest.approx(1, abs=0.02)
    bias = weights.tensor("n.bias").float()
    assert bias.mean() == pytest.approx(0, abs=0.02)
    assert bias.std() > 0.02  # a bias that is left out must show


def test_a_module_has_the_sources_numbers_in_every_dtype() -> None:
    network = Network("vae", "cpu", tiny=True)
    half, full = network.module(torch.float16), network.module(torch.float32)
    for name, value in full.state_dict().items():
        assert torch.equal(value, network.weights.tensor(name).float())
        assert torch.equal(half.state_dict()[name].float(), value)


def test_inputs_are_exact_in_half_precision_and_the_same_each_time() -> None:
    case, network = cases(["loop_1024_30"], tiny=True)[0], Network("base", "cpu", tiny=True)
    one, other = inputs_of(case, network), inputs_of(case, network)
    for name in ("latents", "prompt_embeds", "pooled_prompt_embeds", "time_ids", "timesteps"):
        value = getattr(one, name)
        assert torch.equal(value, getattr(other, name))
        assert torch.equal(value.half().float(), value)
    assert len(set(one.timesteps.tolist())) == case.steps


def test_cases_are_found_by_name_and_are_small_where_that_is_asked() -> None:
    assert [case.name for case in cases()] == [case.name for case in CASES]
    assert [case.name for case in cases(["vae_1024_b1"])] == ["vae_1024_b1"]
    assert [(small.name, 16 * small.size) for small in cases(tiny=True)] == [(case.name, case.size) for case in CASES]


@pytest.mark.parametrize("recipe", ["int8", "fp16"])
@pytest.mark.parametrize("name", ["base", "refiner"])
def test_what_is_built_of_a_network_are_calls_of_the_recipe(name: Name, recipe: str) -> None:
    parts = parts_of(Network(name, "cpu", tiny=True))
    numbers = numbers_of(recipe, parts, CudaTarget(name="cuda", architectures=(90,)))
    lowering = lowered_parts(parts, numbers)
    ops = {call.op for call in lowering.calls}
    assert any("w8a8" in op for op in ops) == (recipe == "int8")
    assert [edge.tensor for edge in lowering.outputs] == ["prediction"]
