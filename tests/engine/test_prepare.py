"""Preparing an engine: its pictures stay what they are, and what was written is no part of the engine."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine import Pipeline, prepare_engine
from pocketxl.engine.folder.manifest import verify
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.prepare import forget_prepared
from pocketxl.engine.runners.processor import processor_facts


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not processor_facts():
        pytest.skip("nothing is prepared where the system does not tell its processor")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(FOLDER, tmp_path / "engine", ignore=shutil.ignore_patterns("*.prepared")))


def picture(engine: Path) -> np.ndarray:
    with Pipeline.load(engine, threads=1) as pipe:
        return np.asarray(pipe("a red apple", seed=7, num_inference_steps=2, output_type="np").images[0])


def test_pictures_stay_the_same_to_the_bit(engine: Path) -> None:
    before = picture(engine)
    made = dict(prepare_engine(engine))
    assert set(made) == {"text_encoder", "text_encoder_2", "base/unet", "refiner/unet"}
    assert all(one.bytes > 0 for one in made.values())
    assert np.array_equal(picture(engine), before)


def test_the_engine_is_whole_with_it_and_without(engine: Path) -> None:
    before = set(engine.rglob("*"))
    size = sum(made.bytes for _, made in prepare_engine(engine))
    assert verify(engine).unknown == ()
    assert forget_prepared(engine) == size
    assert set(engine.rglob("*")) == before
