"""LoRAs of a pipeline's calls: whose they are, what they leave alone, and what becomes of wrong ones."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.adapters.pairs import Lora, Pair
from pocketxl.engine.adapters.read import read_lora
from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError, RequestError
from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.adapted import Opens

from ...fixtures.loras import known, mean_difference

OPTIONS: dict[str, Any] = {
    "prompt": "a red cat",
    "height": 64,
    "width": 64,
    "num_inference_steps": 2,
    "seed": 3,
    "output_type": "np",
}
RANK = 4


def lora_of(pipe: Pipeline, name: str, components: tuple[str, ...], *, group: str = "attention") -> Lora:
    """Random pairs for every layer of a group, of layers that an engine has in one piece."""
    random = np.random.default_rng(len(name))
    pairs = {}
    for component in components:
        runner = pipe.runners[component]
        assert isinstance(runner, Opens)
        assert runner.openings is not None
        pairs[component] = {
            layer: Pair(
                down=random.standard_normal((RANK, *shape[1:]), np.float32) / np.float32(np.prod(shape[1:]) ** 0.5),
                up=random.standard_normal((shape[0], RANK), np.float32) * np.float32(0.3),
            )
            for layer, shape in runner.openings.layers[group].items()
        }
    return Lora(name=name, pairs=pairs, digest=name)


@pytest.fixture
def own(tiny_int8_engine: Path) -> Iterator[Pipeline]:
    """An int8 engine for one test."""
    with Pipeline.load(tiny_int8_engine, threads=1) as pipe:
        yield pipe


def test_calls_have_their_own_or_the_pipelines_and_the_engine_stays_what_it_is(
    own: Pipeline, tiny_int8_engine: Path, tmp_path: Path
) -> None:
    digest, plain = read_manifest(tiny_int8_engine).digest, own(**OPTIONS).images
    loras = [lora_of(own, "first", ("base/unet",)), lora_of(own, "second", ("base/unet", "text_encoder_2"))]
    with known(own, tmp_path, loras) as (first, second):
        with_first = own(**OPTIONS, loras={first: 0.8}).images
        assert mean_difference(with_first, plain) > 1e-3
        own.set_adapters({first: 0.8})
        assert np.array_equal(own(**OPTIONS).images, with_first)
        assert np.array_equal(own(**OPTIONS, loras={}).images, plain), "an empty set is none, not the pipeline's"
        both = own(**OPTIONS, loras={first: 0.8, second: -0.5}).images
        assert mean_difference(both, with_first) > 1e-3
        assert np.array_equal(own(**OPTIONS, loras={"first": 0.8}).images, with_first), "one that was read has a name"
        assert np.array_equal(own(**OPTIONS, loras={second: 0.0}).images, plain)
        own.set_adapters({})
        assert np.array_equal(own(**OPTIONS).images, plain)
    assert read_manifest(tiny_int8_engine).digest == digest
    verify(tiny_int8_engine)


def test_prompts_are_encoded_again_where_a_lora_changes_their_encoder(own: Pipeline, tmp_path: Path) -> None:
    with known(own, tmp_path, [lora_of(own, "words", ("text_encoder", "text_encoder_2"))]) as (file,):
        plain = own.encode(own.request(**OPTIONS))["base"][0][0].prompt_embeds
        changed = own.encode(own.request(**OPTIONS, loras={file: 1.0}))["base"][0][0].prompt_embeds
        again = own.encode(own.request(**OPTIONS))["base"][0][0].prompt_embeds
    width = own.models.text_encoders["text_encoder"].hidden_size
    assert np.abs(changed - plain)[..., :width].mean() > 1e-3
    assert np.abs(changed - plain)[..., width:].mean() > 1e-3
    assert np.array_equal(plain, again)


def test_a_swap_loads_nothing(own: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The U-Net's session stays, also for a LoRA that changes fewer layers."""
    loras = [lora_of(own, "wide", ("base/unet",), group="others"), lora_of(own, "narrow", ("base/unet",))]
    with known(own, tmp_path, loras) as (wide, narrow):
        own(**OPTIONS, loras={wide: 1.0})
        runner = own.runners["base/unet"]
        assert isinstance(runner, Opens)
        opened = runner.opened(runner.openings.graphs[-1])  # type: ignore[union-attr]
        session = opened._session  # type: ignore[attr-defined]
        assert session is not None
        assert not runner.loaded, "one form at a time, or the weights would be in memory twice"
        pictures = [own(**OPTIONS, loras={file: 0.5}).images for file in (narrow, wide, narrow)]
        assert opened._session is session  # type: ignore[attr-defined]
        assert np.array_equal(pictures[0], pictures[2])
        own(**OPTIONS)
        assert not opened.loaded
        own.close()
        alone = own(**OPTIONS, loras={narrow: 0.5}).images
        assert np.array_equal(alone, pictures[0]), "which graph it is makes no difference"


def test_calls_side_by_side_have_their_own(tiny_int8_engine: Path, tmp_path: Path) -> None:
    with Pipeline.load(tiny_int8_engine, threads=1, max_concurrent_calls=3) as pipe:
        loras = [lora_of(pipe, "one", ("base/unet",)), lora_of(pipe, "another", ("base/unet", "refiner/unet"))]
        with known(pipe, tmp_path, loras) as files:
            sets: list[dict[str, float]] = [{}, *({file: 0.7} for file in files)]
            expected = [pipe(**OPTIONS, loras=one).images for one in sets]
            found: list[Any] = [None] * len(sets)

            def make(index: int) -> None:
                found[index] = pipe(**OPTIONS, loras=sets[index]).images

            threads = [threading.Thread(target=make, args=(index,)) for index in range(len(sets))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
    for picture, wanted in zip(found, expected, strict=True):
        assert np.array_equal(picture, wanted)


def test_the_plan_counts_what_they_take(own: Pipeline, tmp_path: Path) -> None:
    lora = lora_of(own, "one", ("base/unet",))
    taken = sum(pair.down.nbytes + pair.up.nbytes for pair in lora.pairs["base/unet"].values())
    plain = own.plan(**OPTIONS)
    with known(own, tmp_path, [lora]) as (file,):
        plan = own.plan(**OPTIONS, loras={file: 1.0})
        assert plan.overhead["host"] - plain.overhead["host"] >= 2 * taken
        with pytest.raises(MemoryBudgetError, match="leave LoRAs out"):
            own.plan(**OPTIONS, loras={file: 1.0}, budget="1MiB")


def test_wrong_ones_are_told_before_anything_runs(own: Pipeline, tmp_path: Path) -> None:
    plain = own(**OPTIONS).images
    good = lora_of(own, "good", ("base/unet",))
    layer, pair = next(iter(good.pairs["base/unet"].items()))
    narrow = replace(pair, down=pair.down[:, 1:])
    loras = [
        good,
        Lora(name="narrow", pairs={"base/unet": {layer: narrow}}, digest="narrow"),
        Lora(name="stranger", pairs={"base/unet": {"blocks.0.attn": pair}}, digest="stranger"),
    ]
    with known(own, tmp_path, loras) as (file, bad, foreign):
        own.set_adapters({file: 0.5})
        cases: list[tuple[Any, type[Exception], str]] = [
            ({bad: 1.0}, IncompatibleError, f"narrow has matrices .* for {layer}"),
            ({foreign: 1.0}, IncompatibleError, "stranger changes blocks.0.attn of base/unet"),
            ({str(tmp_path / "none.safetensors"): 1.0}, RequestError, "is no file"),
            ({file: float("nan")}, RequestError, "weight of LoRA"),
            ({file: 11}, RequestError, "must be -10 to 10"),
            ({file: "much"}, RequestError, "weight of LoRA"),
            ({3: 1.0}, RequestError, "give the path"),
            ([file], RequestError, "give files"),
        ]
        for wrong, error, words in cases:
            for attempt in (own.set_adapters, lambda loras: own.request(**OPTIONS, loras=loras)):
                with pytest.raises(error, match=words):
                    attempt(wrong)
        assert dict(own._adapting.own) == {file: 0.5}, "what was set stays"
    assert np.array_equal(own(**OPTIONS).images, plain)


def test_engines_without_open_graphs_run_as_ever_and_say_what_to_do(tmp_path: Path) -> None:
    """The bundled one, until it is built again; those for GPUs."""
    with Pipeline.load() as pipe:
        for runner in pipe.runners.values():
            if isinstance(runner, Opens):
                runner._entry = replace(runner._entry, openings=None)  # type: ignore[attr-defined]
        pair = Pair(down=np.zeros((1, 4), np.float32), up=np.zeros((4, 1), np.float32))
        with (
            known(pipe, tmp_path, [Lora(name="any", pairs={"base/unet": {"a": pair}}, digest="any")]) as (file,),
            pytest.raises(IncompatibleError, match="no graph of it that takes any; build it again"),
        ):
            pipe.request("a cat", loras={file: 1.0})


def test_the_reader_is_the_one_for_files(own: Pipeline, tmp_path: Path) -> None:
    """What is read is what `read_lora` reads."""
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(Exception, match="broken") as ours:
        own.set_adapters({tmp_path / "broken.safetensors": 1.0})  # type: ignore[dict-item]
    with pytest.raises(type(ours.value)):
        read_lora(tmp_path / "broken.safetensors", own.models)
