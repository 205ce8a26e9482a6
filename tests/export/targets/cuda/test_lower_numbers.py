"""Steps, run one by one, give what the module gives: the miniature's networks, its family, small ones of any shape."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pocketxl.engine.architecture import UNetArchitecture
from pocketxl.engine.models.clip import LEGACY_END_OF_TEXT, ClipTextEncoder
from pocketxl.engine.models.clip_layers import ClipLayer
from pocketxl.engine.models.conditioner import Embedding
from pocketxl.engine.models.operations import attention
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.runners.cuda_vectors import rows_of
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.engine.text_architecture import TextOutput
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.components import Component, assemble
from pocketxl.export.graph.master import export_master
from pocketxl.export.targets.cuda.edges import inputs_of
from pocketxl.export.targets.cuda.lower import steps_of
from pocketxl.export.targets.cuda.steps import Attention, Linear, Steps

from ....fixtures.compare import relative_error
from ....fixtures.cuda_steps import run_steps, values_of
from ....fixtures.networks import CLIP, UNETS, adopt, clip_pair, randomize, unet_pair, vae_pair
from ....tolerances import MODEL_RELATIVE

WEIGHTS = Path(__file__).parents[4] / "export" / "miniature" / "weights"
TOKENS = 7
# One picture of a usual shape, and two of a size that is odd at every level.
SHAPES = [(1, 16, 24), (2, 17, 23)]


@pytest.fixture(scope="module")
def miniature() -> Mapping[str, Component]:
    base, refiner = (open_checkpoint(WEIGHTS / kind) for kind in ("base", "refiner"))
    return assemble(base, refiner, lambda checkpoint, part: f"{checkpoint.kind}.{part}").components


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def lowered(module: nn.Module, spec: ComponentSpec, dtype: torch.dtype = torch.float16) -> Steps:
    """Those of a module that is there; `export_master` has one of its own, on the meta device, and hooks into it."""
    return steps_of(export_master("probe", lambda: copy.deepcopy(module).to("meta"), spec, dtype=dtype))


def tensors_of(spec: ComponentSpec, batch: int, height: int, width: int) -> dict[str, Tensor]:
    """Random inputs by the names in the spec."""
    sizes = {"batch": batch, "height": height, "width": width, "tokens": TOKENS}
    return {t.name: torch.randn([d if isinstance(d, int) else sizes[d] for d in t.shape]) for t in spec.inputs}


def one_of(steps: Steps, output: str) -> str:
    """The value that an output is."""
    (value,) = steps.outputs[output]
    return value


def by_the_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> Tensor:
    """Its own output, of inputs by name."""
    arguments: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if "." not in name}
    if key_values := [tensor for name, tensor in tensors.items() if "." in name]:
        arguments["key_values"] = key_values
    with torch.inference_mode():
        result: Tensor = module(**arguments)
    return result


def holds(
    module: nn.Module, spec: ComponentSpec, batch: int, height: int, width: int, dtype: torch.dtype = torch.float16
) -> None:
    """The steps' output is the module's, both in float32; `dtype`: of the master."""
    steps, tensors = lowered(module, spec, dtype), tensors_of(spec, batch, height, width)
    sizes = Sizes(batch=batch, height=height, width=width, tokens=TOKENS)
    with torch.inference_mode():
        values = run_steps(steps, values_of(steps, tensors), module.state_dict(), sizes)
    (output,) = spec.outputs
    found, expected = values[one_of(steps, output.name)], by_the_module(module, tensors)
    if expected.dim() == 4:
        found = found.permute(0, 3, 1, 2)
    assert relative_error(found, expected) < MODEL_RELATIVE


@pytest.mark.parametrize(("batch", "height", "width"), SHAPES, ids=["even", "odd"])
@pytest.mark.parametrize("name", ["base/unet", "refiner/unet", "vae_decoder"])
def test_the_miniature(miniature: Mapping[str, Component], name: str, batch: int, height: int, width: int) -> None:
    component = miniature[name]
    weights = {parameter: component.weights.tensor(parameter).float() for parameter in component.weights}
    holds(adopt(component.module().float(), weights), component.spec, batch, height, width)


@pytest.mark.parametrize("kind", UNETS)
def test_unets_of_the_family(kind: str) -> None:
    pair = unet_pair(kind)
    holds(pair.unet, pair.architecture.unet(), 2, 13, 9)


@pytest.mark.parametrize(("batch", "height", "width"), SHAPES, ids=["even", "odd"])
def test_vae_decoder(batch: int, height: int, width: int) -> None:
    pair = vae_pair()
    holds(pair.ours, pair.architecture.decoder(), batch, height, width)


@st.composite
def architectures(draw: st.DrawFn) -> UNetArchitecture:
    """U-Nets of one to three levels, some without attention, with any channels and depths."""
    levels = draw(st.integers(1, 3))
    heads = tuple(draw(st.lists(st.integers(1, 2), min_size=levels, max_size=levels)))
    channels = tuple(8 * heads * draw(st.integers(1, 2)) for heads in heads)
    depths = st.lists(st.integers(0, 2), min_size=levels, max_size=levels).map(tuple)
    return UNetArchitecture(
        in_channels=draw(st.sampled_from([4, 9])),
        out_channels=4,
        block_out_channels=channels,
        transformer_layers=draw(depths),
        up_transformer_layers=draw(depths),
        mid_transformer_layers=draw(st.integers(1, 2)),
        layers_per_block=draw(st.integers(1, 2)),
        heads=heads,
        cross_attention_dim=8,
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
        norm_num_groups=draw(st.sampled_from([2, 4])),
        norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
    )


@settings(max_examples=8, deadline=None)
@given(architecture=architectures(), batch=st.integers(1, 2), height=st.integers(2, 9), width=st.integers(2, 9))
def test_unets_of_any_depths_and_channels(architecture: UNetArchitecture, batch: int, height: int, width: int) -> None:
    holds(randomize(UNet(architecture)), architecture.unet(), batch, height, width)


def spec_of(inputs: Mapping[str, tuple[int | str, ...]], output: tuple[int | str, ...]) -> ComponentSpec:
    return ComponentSpec(
        role=Role.UNET,
        inputs=tuple(TensorSpec(name=name, shape=shape) for name, shape in inputs.items()),
        outputs=(TensorSpec(name="y", shape=output),),
    )


class TextLayers(nn.Module):
    """A text encoder behind its embeddings."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        architecture = clip_pair(pooled=False, hidden_act=activation).architecture
        self.layers = nn.ModuleList([ClipLayer(architecture, causal=True) for _ in range(2)])
        self.final = nn.LayerNorm(architecture.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """`[batch, tokens, 32]` → the same shape."""
        for layer in self.layers:
            states = layer(states)
        return self.final(states)  # type: ignore[no-any-return]


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_layers_of_a_text_encoder(activation: str) -> None:
    shape = ("batch", "tokens", 32)
    module, spec = randomize(TextLayers(activation)), spec_of({"states": shape}, shape)
    steps = lowered(module, spec, torch.float32).steps
    assert {step.causal for step in steps if isinstance(step, Attention)} == {True}
    assert {step.activation for step in steps if isinstance(step, Linear)} == {activation, None}
    holds(module, spec, 2, 1, 1, dtype=torch.float32)


@pytest.mark.parametrize("end", [LEGACY_END_OF_TEXT, CLIP["vocab_size"] - 1], ids=["largest", "its id"])
@pytest.mark.parametrize("output", TextOutput)
@pytest.mark.parametrize("skip", [0, 1])
def test_text_encoders(output: TextOutput, end: int, skip: int) -> None:
    """Both places that states are read in, both ways to find the end of a text."""
    pair = clip_pair(pooled=True, output=output, eos_token_id=end)
    skip = skip if output is TextOutput.PENULTIMATE else 0
    architecture = replace(pair.architecture, clip_skip=skip)
    module = adopt(ClipTextEncoder(architecture), pair.ours.state_dict())
    steps = lowered(module, architecture.component())
    words = steps.words
    assert words is not None
    assert words.end == (None if end == LEGACY_END_OF_TEXT else end)
    assert steps.ends == {"pooled"}
    tokens = architecture.max_position_embeddings
    ids = torch.randint(0, CLIP["vocab_size"] - 1, (2, tokens))
    ids[0, 3:], ids[1, -1] = CLIP["vocab_size"] - 1, CLIP["vocab_size"] - 1
    weights = module.state_dict()
    with torch.inference_mode():
        states = weights[words.words][ids] + weights[words.places]
        sizes = Sizes(batch=2, height=1, width=1, tokens=tokens)
        values = run_steps(steps, {words.tensor: states}, weights, sizes)
        hidden, pooled = module(ids)
    assert relative_error(values[one_of(steps, "hidden_states")], hidden) < MODEL_RELATIVE
    rows = values[one_of(steps, "pooled")][torch.arange(2), torch.tensor([3, tokens - 1])]
    assert relative_error(rows, pooled) < MODEL_RELATIVE


@pytest.mark.parametrize("kind", UNETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_conditioners_of_the_family(kind: str, dtype: torch.dtype) -> None:
    pair = unet_pair(kind)
    module, spec = pair.conditioner, pair.architecture.conditioner()
    lengths = {"batch": 2, "tokens": TOKENS, "steps": 3}
    given = {t.name: torch.rand([d if isinstance(d, int) else lengths[d] for d in t.shape]) for t in spec.inputs}
    given["timesteps"] = torch.tensor([999.0, 400.5, 0.0])
    if "time_ids" in given:
        given["time_ids"] = (1024 * given["time_ids"]).round()
    sizes = Sizes(batch=2, height=1, width=1, tokens=TOKENS, steps=3)
    steps = lowered(module, spec, dtype)
    values: dict[str, Tensor] = {"prompt_embeds": given["prompt_embeds"]}
    for edge in inputs_of(spec, steps):
        if edge.vectors is not None:
            (value,) = edge.values
            whole = values.setdefault(value.name, torch.full([sizes[d] for d in value.shape], float("nan")))
            made = rows_of(edge, given[edge.tensor].numpy(), sizes)
            whole[:, edge.vectors.first : edge.vectors.first + edge.vectors.width] = torch.from_numpy(made)
    with torch.inference_mode():
        found = run_steps(steps, values, module.state_dict(), sizes)
        expected = module(**given)
    for tensor, wanted in zip(spec.outputs, expected, strict=True):
        parts = [found[name] for name in steps.outputs[tensor.name]]
        assert relative_error(torch.cat(parts, -1).reshape(wanted.shape), wanted) < MODEL_RELATIVE, tensor.name


def test_layers_of_a_vector() -> None:
    spec = spec_of({"x": ("batch", 12)}, ("batch", 20))
    holds(randomize(Embedding(12, 20)), spec, 3, 1, 1, dtype=torch.float32)


class Parts(nn.Module):
    """Layers to write small networks of; those that one does not use are no part of it."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], *used: str) -> None:
        super().__init__()
        self.network = forward
        layers = {
            "a": nn.Conv2d(4, 4, 3, padding=1),
            "b": nn.Conv2d(4, 4, 1),
            "c": nn.Conv2d(4, 4, 3, padding=1, bias=False),
            "q": nn.Linear(4, 4),
            "k": nn.Linear(4, 4, bias=False),
            "v": nn.Linear(4, 4),
            "w": nn.Linear(4, 4),
        }
        for name in used:
            self.add_module(name, layers[name])

    def forward(self, x: Tensor) -> Tensor:
        """A picture or tokens with 4 channels → the same shape."""
        return self.network(self, x)


def unlike(m: Any, x: Tensor) -> Tensor:
    """One of three siblings has no bias."""
    return attention(m.q(x), m.k(x), m.v(x), 2)


def apart(m: Any, x: Tensor) -> Tensor:
    """Queries of one value, keys and values of another, two readers of the keys."""
    keys = m.k(x)
    return attention(m.q(x), keys, keys, 2)


def kept(m: Any, x: Tensor) -> Tensor:
    """Three siblings, of which one is read once more."""
    keys = m.w(x)
    return m.k(attention(m.q(x), keys, m.v(x), 2)) + keys  # type: ignore[no-any-return]


def shared(m: Any, x: Tensor) -> Tensor:
    """The first operand of a sum is read once more, behind the sum."""
    first = m.a(x)
    return m.c(first + m.b(x)) + first  # type: ignore[no-any-return]


def both(m: Any, x: Tensor) -> Tensor:
    """Sums of sums."""
    return m.c(x) + (m.b(x) + m.a(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "used"),
    [(unlike, "qkv"), (apart, "qk"), (kept, "qkvw"), (shared, "abc"), (both, "abc")],
    ids=["unlike", "apart", "kept", "shared", "both"],
)
def test_what_others_read_stays_as_it_is(network: Callable[[Any, Tensor], Tensor], used: str) -> None:
    shape = ("batch", "tokens", 4) if "q" in used else ("batch", 4, "height", "width")
    holds(Parts(network, *used), spec_of({"x": shape}, shape), 2, 5, 6, dtype=torch.float32)
