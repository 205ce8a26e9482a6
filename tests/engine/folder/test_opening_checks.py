"""What `engine.json` says of open graphs: whatever contradicts itself is found before anything is loaded."""

from dataclasses import replace
from typing import Any

import pytest

from pocketxl.engine.folder.activation import ActivationModel
from pocketxl.engine.folder.files import FileEntry
from pocketxl.engine.folder.manifest import ComponentEntry
from pocketxl.engine.folder.opening_checks import opening_faults
from pocketxl.engine.folder.openings import CachedGraphs, OpenGraph, Openings, ShallowGraph, files_of, pair_inputs
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec

LATENTS = TensorSpec(name="latents", shape=("batch", 4, "height", "width"))
ROW = TensorSpec(name="control", shape=("batch", 4))
GRAPH = OpenGraph(file="open.onnx", groups=("attention",), activation=ActivationModel(terms={"1": 8.0}), inputs=(ROW,))
SOUND = Openings(
    layers={"attention": {"attn1.to_q": (8, 4)}, "others": {"conv": (8, 4, 3, 3)}},
    factors="openings.npz",
    graphs=(GRAPH, replace(GRAPH, file="more.onnx", groups=("attention", "others"))),
)
FEATURE = TensorSpec(name="deep_feature", shape=("batch", 8, "height", "width"))
SHALLOW = ShallowGraph(
    file="shallow.onnx", own=("latents",), layers=("conv",), activation=GRAPH.activation, weight_bytes=1, inputs=(ROW,)
)
PAIR = CachedGraphs(feature=FEATURE, whole=replace(GRAPH, file="cached.onnx"), shallow=SHALLOW)
CACHED = replace(SOUND, cached=(PAIR,))


def entry() -> ComponentEntry:
    names = ("model.onnx", "open.onnx", "more.onnx", "cached.onnx", "shallow.onnx", "openings.npz")
    return ComponentEntry(
        spec=ComponentSpec(role=Role.UNET, inputs=(LATENTS,), outputs=(LATENTS,)),
        runner="ort",
        files=tuple(FileEntry(path=f"base/unet/{name}", sha256="0" * 64, size=1) for name in names),
        weight_bytes=1,
        activation=ActivationModel(terms={}),
        openings=SOUND,
    )


def graph(**changes: Any) -> Openings:
    return replace(SOUND, graphs=(replace(GRAPH, **changes),))


def shallow(**changes: Any) -> Openings:
    return replace(CACHED, cached=(replace(PAIR, shallow=replace(SHALLOW, **changes)),))


def test_a_sound_one_has_no_fault_and_files_of_its_own() -> None:
    assert not list(opening_faults(SOUND, entry()))
    assert files_of(SOUND) == {"open.onnx", "more.onnx", "openings.npz"}
    assert files_of(replace(SOUND, factors="")) == {"open.onnx", "more.onnx"}
    assert not files_of(None)
    assert not list(opening_faults(CACHED, entry()))
    assert files_of(CACHED) == files_of(SOUND) | {"cached.onnx", "shallow.onnx"}


@pytest.mark.parametrize(
    ("openings", "words"),
    [
        (replace(SOUND, graphs=()), "name the files"),
        (replace(SOUND, factors="other.npz"), "name the files"),
        (replace(SOUND, factors="open.onnx"), "name the files"),
        (replace(SOUND, graphs=(GRAPH, GRAPH)), "name the files"),
        (replace(SOUND, layers={"attention": {"a": (8, 4)}, "others": {"a": (8, 4)}}), "each once"),
        (replace(SOUND, layers={"attention": {"a" * 400: (8, 4)}}), "each once"),
        (replace(SOUND, layers={"attention": {"a": (8,)}}), "has the shape"),
        (replace(SOUND, layers={"attention": {"a": (8, 0)}}), "has the shape"),
        (replace(SOUND, layers={"attention": {"a": (8, 1 << 40)}}), "has the shape"),
        (graph(groups=("none",)), "groups are"),
        (graph(activation=ActivationModel(terms={"dogs": 1.0})), "terms has 'dogs'"),
        (graph(inputs=(ROW, ROW)), "each once"),
        (graph(inputs=(replace(ROW, name="lora.attn1.to_q.up"),)), "each once"),
        (graph(inputs=(replace(ROW, dtype="object"),)), "is allowed"),
        (graph(inputs=(replace(ROW, shape=(-1,)),)), "is allowed"),
        (shallow(file="none.onnx"), "name the files"),
        (shallow(file="open.onnx"), "name the files"),
        (shallow(own=("latents", "dogs")), "takes ['dogs']"),
        (shallow(layers=("conv", "none")), "takes ['none']"),
        (shallow(own=("latents", "latents")), "each once"),
        (shallow(inputs=(ROW, replace(ROW, name="lora.conv.up"))), "each once"),
        (shallow(inputs=(FEATURE,)), "each once"),
        (shallow(inputs=(replace(ROW, dtype="object"),)), "is allowed"),
        (shallow(activation=ActivationModel(terms={"dogs": 1.0})), "terms has 'dogs'"),
        (shallow(weight_bytes=0), "weight_bytes is 0"),
        (shallow(weight_bytes=2), "weight_bytes is 2"),
        (replace(CACHED, cached=(replace(PAIR, feature=LATENTS),)), "a feature of another name"),
        (replace(CACHED, cached=(replace(PAIR, feature=replace(FEATURE, shape=(1 << 30,))),)), "is allowed"),
        (replace(CACHED, cached=(replace(PAIR, whole=replace(GRAPH, groups=("none",))),)), "name the files"),
    ],
)
def test_faults(openings: Openings, words: str) -> None:
    fault = next(opening_faults(openings, entry()))
    assert words in fault


def test_inputs_of_pairs_are_as_products_and_convolutions_take_them() -> None:
    assert [t.shape for t in pair_inputs("q", (8, 4))] == [(4, "rank.q"), ("rank.q", 8)]
    assert [t.shape for t in pair_inputs("c", (8, 4, 3, 3))] == [("rank.c", 4, 3, 3), (8, "rank.c", 1, 1)]
