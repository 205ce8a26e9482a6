"""Pictures of ComfyUI: what sd-parsers reads in them, we read, and no graph does harm."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager

from pocketxl.engine.picture.comfyui import MAX_CHARACTERS, settings_of
from pocketxl.engine.picture.files import read_settings

from ...fixtures.growth import assert_linear


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


GRAPH = {
    "4": node("CheckpointLoaderSimple", ckpt_name="sub/sd_xl_base_1.0.safetensors"),
    "5": node("EmptyLatentImage", width=768, height=1024, batch_size=1),
    "6": node("CLIPTextEncode", text="a (red:1.2) apple", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="blurry, embedding:bad", clip=["4", 1]),
    "3": node("KSampler", seed=2**60, steps=25, cfg=6.5, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0,
              model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0]),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", filename_prefix="x", images=["8", 0]),
}  # fmt: skip
EXPECTED = {
    "Prompt": "a (red:1.2) apple", "Negative prompt": "blurry, embedding:bad", "Steps": "25", "CFG scale": "6.5",
    "Seed": str(2**60), "Sampler": "dpmpp_2m", "Schedule type": "karras", "Size": "768x1024",
    "Model": "sub/sd_xl_base_1.0",
}  # fmt: skip


def written(folder: Path, graph: Any, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    kinds = {"clip": "CLIP", "model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING"}
    links = [
        [0, link[0], link[1], key, 0, kinds.get(name, name.upper())]
        for key, one in graph.items()
        for name, link in one["inputs"].items()
        if isinstance(link, list)
    ]
    workflow = json.dumps({"links": links})
    for name, text in {"prompt": json.dumps(graph), "workflow": workflow, **texts}.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(folder / "comfy.png", pnginfo=info)
    return folder / "comfy.png"


def test_text_to_image(tmp_path: Path) -> None:
    path = written(tmp_path, GRAPH)
    assert read_settings(path) == EXPECTED
    theirs = ParserManager().parse(path)
    assert theirs is not None
    (sampler,) = theirs.samplers
    assert theirs.full_prompt == EXPECTED["Prompt"]
    assert theirs.full_negative_prompt == EXPECTED["Negative prompt"]
    assert sampler.name == EXPECTED["Sampler"]
    assert [str(sampler.parameters[name]) for name in ("seed", "steps", "cfg_scale")] == [
        EXPECTED[name] for name in ("Seed", "Steps", "CFG scale")
    ]


def test_parameters_count_where_there_are_both(tmp_path: Path) -> None:
    path = written(tmp_path, GRAPH, parameters="a pear\nSteps: 3, Sampler: Euler, Seed: 1")
    assert read_settings(path)["Prompt"] == "a pear"


def test_the_last_of_two_samplers_and_links_to_values() -> None:
    graph = {
        **GRAPH,
        "20": node("KSampler", **{**GRAPH["3"]["inputs"], "seed": ["21", 0], "steps": 9, "latent_image": ["3", 0],
                                  "positive": ["22", 0], "negative": ["22", 1]}),
        "21": node("PrimitiveInt", value=77),
        "22": node("ControlNetApplyAdvanced", positive=["23", 0], negative=["7", 0], strength=1.0),
        "23": node("CLIPTextEncode", text=["24", 0], clip=["4", 1]),
        "24": node("String", value="a pear"),
    }  # fmt: skip
    assert settings_of(json.dumps(graph)) == {**EXPECTED, "Seed": "77", "Steps": "9", "Prompt": "a pear"}


def test_a_zeroed_negative_is_none() -> None:
    graph = {**GRAPH, "7": node("ConditioningZeroOut", conditioning=["6", 0])}
    assert "Negative prompt" not in settings_of(json.dumps(graph))


LINKED = {"1": node("KSampler", seed=1, positive=["1", 0], negative=["2", 0], latent_image=["1", 0])}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"1": 3}',
        '{"1": {"inputs": 3}}',
        "[" * 100_000,
        "{" + '"a":{' * 50_000,
        json.dumps(LINKED),
    ],
)
def test_what_is_no_such_graph_says_nothing(text: str) -> None:
    assert settings_of(text) == {}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.just(["1", 0]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["inputs", "seed", "positive", "negative", "latent_image", "text", "1", "2"]),
                        inner, max_size=6), max_leaves=20))  # fmt: skip
def test_any_json_is_read(value: Any) -> None:
    assert all(isinstance(text, str) for text in settings_of(json.dumps(value)).values())


def hostile_graph(size: int) -> str:
    """Of about `size` characters: many samplers that all ask for one node, which asks for itself many times."""
    samplers = {
        str(i): node("K", seed=1, positive=["x", 0], negative=["x", 0], latent_image=["x", 0])
        for i in range(size // 250)
    }
    return json.dumps({**samplers, "x": node("X", **{f"a{i}": ["x", 0] for i in range(size // 50)})})


def test_a_hostile_graph_takes_linear_time() -> None:
    graphs = {size: hostile_graph(size) for size in (100_000, 1_000_000)}
    assert all(len(graph) < MAX_CHARACTERS for graph in graphs.values())
    assert_linear(lambda size: settings_of(graphs[size]), 100_000)
