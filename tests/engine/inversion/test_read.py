"""Embedding files of every layout, and those that are none, damaged or another model's."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.inversion.read import read_inversion
from pocketxl.engine.miniature import FOLDER

MODELS = read_manifest(FOLDER).models
WIDTHS = {name: encoder.hidden_size for name, encoder in MODELS.text_encoders.items()}
ONE = replace(MODELS, text_encoders={"text_encoder": MODELS.text_encoders["text_encoder"]})
FIRST, SECOND = WIDTHS["text_encoder"], WIDTHS["text_encoder_2"]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def written(folder: Path, tensors: dict[str, Any]) -> Path:
    path = folder / "my style.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("names", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_of_two_encoders(tmp_path: Path, names: tuple[str, str]) -> None:
    tensors = {names[0]: numbers(3, FIRST), names[1]: numbers(3, SECOND)}
    path = written(tmp_path, tensors)
    found = read_inversion(path, MODELS)
    assert (found.name, found.count, found.digest) == ("my style", 3, sha256(path.read_bytes()).hexdigest())
    np.testing.assert_array_equal(found.vectors["text_encoder"], tensors[names[0]])
    np.testing.assert_array_equal(found.vectors["text_encoder_2"], tensors[names[1]])


@pytest.mark.parametrize("name", ["emb_params", "<my-token>", "clip_l"])
@pytest.mark.parametrize("shape", [(2, FIRST), (FIRST,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_of_one_encoder(tmp_path: Path, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    tensor = numbers(*shape).astype(dtype)
    found = read_inversion(written(tmp_path, {name: tensor}), ONE)
    np.testing.assert_array_equal(found.vectors["text_encoder"], np.atleast_2d(tensor.astype(np.float32)))


def test_one_of_sd_1_5_is_told_on_sdxl(tmp_path: Path) -> None:
    sdxl = {
        name: replace(encoder, hidden_size=width)
        for (name, encoder), width in zip(MODELS.text_encoders.items(), (768, 1280), strict=True)
    }
    with pytest.raises(
        IncompatibleError,
        match=r"my style has nothing for text_encoder: it has 768 numbers a vector \(as those of SD 1.5 are\), "
        "this engine's text encoders 768 and 1280; give one of its model",
    ):
        read_inversion(written(tmp_path, {"emb_params": numbers(2, 768)}), replace(MODELS, text_encoders=sdxl))


GOOD = {"clip_l": numbers(2, FIRST), "clip_g": numbers(2, SECOND)}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"clip_g": numbers(2, SECOND + 1)}, IncompatibleError, "vectors of .* numbers for text_encoder_2, whose own"),
        ({"clip_g": numbers(3, SECOND)}, IntegrityError, "has 2 and 3 vectors"),
        ({"clip_l": numbers(76, FIRST), "clip_g": numbers(76, SECOND)}, IntegrityError, "has 76 vectors"),
        ({"clip_l": numbers(0, FIRST), "clip_g": numbers(0, SECOND)}, IntegrityError, "has 0 vectors"),
        ({"clip_l": np.full((2, FIRST), np.nan, np.float32)}, IntegrityError, "NaN or Inf"),
        ({"clip_l": numbers(1, 2, FIRST)}, IncompatibleError, "give one of its model"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read_inversion(written(tmp_path, {**GOOD, **change}), MODELS)


def test_what_is_damaged_or_a_pickle(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(IntegrityError, match="not a whole safetensors file"):
        read_inversion(path, MODELS)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(IntegrityError, match="is a pickle"):
        read_inversion(path, MODELS)
