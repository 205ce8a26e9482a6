"""A picture depends on its own prompt and seed alone, to the bit."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.pipeline import Pipeline

PROMPTS = ["a red cat", "blue sky " * 50, ""]  # of two chunks and of one: nothing is padded for a neighbour's sake
SEEDS = [3, 99, 12]


@pytest.fixture(scope="module", params=["fp32", "int8"])
def engine(request: pytest.FixtureRequest) -> Path:
    folder = request.getfixturevalue("tiny_engine" if request.param == "fp32" else "tiny_int8_engine")
    assert isinstance(folder, Path)
    return folder


@pytest.fixture(scope="module")
def opened(engine: Path) -> Iterator[Pipeline]:
    with Pipeline.load(engine, threads=2) as pipeline:
        yield pipeline


def make(pipe: Pipeline, prompt: str | list[str], seed: list[int], **options: Any) -> np.ndarray:
    size = {"height": 64, "width": 72, "num_inference_steps": 4, "denoising_end": 0.5}
    made = pipe(prompt, seed=seed, output_type="np", **{**size, **options}).images
    assert isinstance(made, np.ndarray)
    return made


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde"])
def test_alone_and_in_a_batch(opened: Pipeline, sampler: str) -> None:
    together = make(opened, PROMPTS, SEEDS, sampler=sampler)
    for index, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        assert np.array_equal(make(opened, prompt, [seed], sampler=sampler)[0], together[index])
    assert not np.array_equal(together[0], together[1])


def test_images_of_one_prompt(opened: Pipeline) -> None:
    together = make(opened, PROMPTS[0], SEEDS, num_images_per_prompt=3, sampler="euler_a")
    alone = make(opened, PROMPTS[0], SEEDS[1:2], sampler="euler_a")
    assert np.array_equal(together[1], alone[0])


def test_same_seed_twice(opened: Pipeline, engine: Path) -> None:
    first = make(opened, PROMPTS[0], [5], sampler="dpmpp_2m_sde")
    assert np.array_equal(make(opened, PROMPTS[0], [5], sampler="dpmpp_2m_sde"), first)
    assert not np.array_equal(make(opened, PROMPTS[0], [6], sampler="dpmpp_2m_sde"), first)
    with Pipeline.load(engine, threads=2) as fresh:
        assert np.array_equal(make(fresh, PROMPTS[0], [5], sampler="dpmpp_2m_sde"), first)


def test_calls_from_threads(opened: Pipeline) -> None:
    calls = [(prompt, [seed]) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    one_by_one = [make(opened, *call) for call in calls]
    with ThreadPoolExecutor(len(calls)) as threads:
        at_once = list(threads.map(lambda call: make(opened, *call), calls))
    assert all(np.array_equal(one, other) for one, other in zip(one_by_one, at_once, strict=True))
