"""NaN and Inf are found while a checkpoint is hashed, in every float format; torch agrees which numbers those are."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IntegrityError
from pocketxl.engine.progress import Silent
from pocketxl.export.checkpoint.finite import MASKS, FiniteCheck
from pocketxl.export.checkpoint.weights import HASH_BLOCK, open_weights
from pocketxl.export.job import open_as, prepare
from pocketxl.export.publish import digests
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import find_target

FLOATS = sorted(MASKS)


@given(st.sampled_from(FLOATS), st.binary(min_size=8, max_size=400))
def test_the_first_bad_number_is_the_one_that_torch_names(dtype: str, data: bytes) -> None:
    data = data[: len(data) // 8 * 8]
    bad = ~torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype)).double().isfinite()
    expected = int(bad.int().argmax()) if bad.any() else None
    assert FiniteCheck(dtype, 400).first_bad(memoryview(data)) == expected


@pytest.mark.parametrize("dtype", [dtype for dtype in FLOATS if MASKS[dtype].itemsize <= 2])
def test_every_bit_pattern_of_a_small_format(dtype: str) -> None:
    size = MASKS[dtype].itemsize
    patterns = torch.arange(256**size).to(torch.uint8 if size == 1 else torch.uint16)
    finite = patterns.view(getattr(torch, dtype)).float().isfinite()
    raw, check = patterns.view(torch.uint8).numpy(), FiniteCheck(dtype, size)
    found = [check.first_bad(raw[i : i + size].data) is None for i in range(0, len(raw), size)]
    assert found == finite.tolist()


def test_whole_numbers_are_finite() -> None:
    assert FiniteCheck("int64", 8).first_bad(memoryview(b"\xff" * 8)) is None


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_bad_value_is_told_with_file_tensor_and_place(tmp_path: Path, dtype: str, place: int) -> None:
    count = HASH_BLOCK + 5  # of which the last lies in another block than the first
    values = torch.zeros(count, dtype=getattr(torch, dtype))
    save_file({"good": values, "bad": values.clone()}, tmp_path / "model.safetensors")
    assert open_weights(tmp_path, "model").digest()
    values[place] = float("nan")
    save_file({"good": torch.ones(3), "bad": values}, tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError, match=rf"model\.safetensors: value {place % count} of bad .* is NaN or Inf"):
        open_weights(tmp_path, "model").digest()


def test_a_transposed_tensor_is_looked_through(tmp_path: Path) -> None:
    save_file({"t": torch.tensor([[1.0, 2.0], [float("-inf"), 3.0]])}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path, "model")
    turned = type(weights)({"t": weights.stored("t").transpose()})
    with pytest.raises(IntegrityError, match="value 1 of t"):
        turned.digest()


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("unet", "conv_in.weight"),
        ("vae", "decoder.conv_out.bias"),
        ("text_encoder", "text_model.embeddings.token_embedding.weight"),
    ],
)
def test_a_build_ends_before_its_first_layer(
    tiny_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
    name: str,
) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_SETTLED_SECONDS", -1.0)  # what can be remembered is
    folder = Path(shutil.copytree(tiny_folders["base"], tmp_path / "base"))
    file = next((folder / component).glob("*.safetensors"))
    tensors = load_file(file)
    stored = name if name in tensors else name.removeprefix("text_model.")
    tensors[stored].view(-1)[-1] = float("nan")
    save_file(tensors, file)
    for _ in range(2):  # the second time, all other components' digests come from the cache
        with pytest.raises(IntegrityError, match=rf"{file}: value \d+ of {name} "):
            prepare(
                open_as(folder, "base", None),
                None,
                target=find_target("cpu"),
                recipe=RECIPES["fp32"],
                calibration_size=None,
                progress=Silent(),
            )
