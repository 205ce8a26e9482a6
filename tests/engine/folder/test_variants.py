"""Files for other GPU generations: the description holds together, and one of them is chosen."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.files import WORDS_FILE, entry_of
from pocketxl.engine.folder.manifest import ComponentEntry, Manifest, read_manifest, verify
from pocketxl.engine.folder.variants import chosen_file, file_for, loaded_bytes

from ...fixtures.manifest_mutations import sealed
from ...fixtures.manifests import COMPONENTS, described, entry

NAMES = {"model.engine": ("sm80", "sm89"), "model.sm75.engine": ("sm75",)}
SIZES = {"model.engine": 30, "model.sm75.engine": 50}


def engine(folder: Path) -> Manifest:
    """Each component has a file for two generations, a larger one for another, and what both need."""
    components = {}
    for name in COMPONENTS:
        (folder / name).mkdir(parents=True)
        for file, size in {**SIZES, "tables": 7}.items():
            (folder / name / file).write_bytes(f"{name}/{file}".encode().ljust(size)[:size])
        files = [entry_of(folder, f"{name}/{file}") for file in (*SIZES, "tables")]
        symbol = next(d for tensor in entry(name, files).spec.inputs for d in tensor.shape if isinstance(d, str))
        made = entry(name, files, architectures=NAMES, ranges={symbol: (1, 2)})
        components[name] = dataclasses.replace(made, runner="tensorrt", weight_bytes=50 + 7)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.json").write_bytes(b"{}")
    manifest = described(components, [entry_of(folder, "tokenizer/vocab.json")], target="rtx-all")
    (folder / "engine.json").write_text(manifest.to_json())
    return manifest


def test_the_description_says_which_file_is_for_which_generation(tmp_path: Path) -> None:
    made = engine(tmp_path)
    read = read_manifest(tmp_path)
    assert read == made
    assert read.components["base/unet"].architectures == NAMES
    assert read.to_json() == made.to_json()


def test_engines_with_one_file_for_all_say_nothing_of_it(tmp_path: Path) -> None:
    """So that descriptions of other targets are what they were."""
    components = engine(tmp_path).components
    plain = dataclasses.replace(components["base/unet"], architectures={}, ranges={}, weight_bytes=87)
    told, untold = (json.loads(described({"base/unet": e}, []).to_json()) for e in (components["base/unet"], plain))
    keys = set(told["components"]["base/unet"]) - set(untold["components"]["base/unet"])
    assert keys == {"architectures", "ranges"}


def test_of_the_variants_one_is_loaded_and_memory_is_planned_for_the_largest(tmp_path: Path) -> None:
    component = engine(tmp_path).components["base/unet"]
    assert loaded_bytes(component.files, NAMES) == 50 + 7
    assert loaded_bytes(component.files, {}) == 30 + 50 + 7
    table = dataclasses.replace(component.files[0], path=f"base/unet/{WORDS_FILE}")
    assert loaded_bytes([*component.files, table], NAMES) == 50 + 7, "what words are looked up in stays on the disk"


@pytest.mark.parametrize(
    ("architecture", "name"), [("sm80", "model.engine"), ("sm89", "model.engine"), ("sm75", "model.sm75.engine")]
)
def test_the_file_for_a_card(tmp_path: Path, architecture: str, name: str) -> None:
    component = engine(tmp_path).components["base/unet"]
    assert chosen_file(component, architecture, folder=tmp_path, gpu="a card").path == f"base/unet/{name}"


def test_a_card_that_none_is_for_is_one_sentence(tmp_path: Path) -> None:
    component = engine(tmp_path).components["base/unet"]
    assert file_for(component, "sm120") is None
    assert file_for(component, "") is None
    with pytest.raises(IncompatibleError, match=r"built for sm80, sm89, sm75, and this NVIDIA X is sm120; .*rtx-sm120"):
        chosen_file(component, "sm120", folder=tmp_path, gpu="NVIDIA X")


def test_an_only_file_is_tried_on_every_card(tmp_path: Path) -> None:
    component = engine(tmp_path).components["base/unet"]
    one = dataclasses.replace(component, files=component.files[:1], architectures={"model.engine": ("sm80",)})
    assert file_for(one, "sm121") == component.files[0]


def test_several_that_nobody_tells_apart_are_no_engine(tmp_path: Path) -> None:
    component: ComponentEntry = dataclasses.replace(engine(tmp_path).components["base/unet"], architectures={})
    with pytest.raises(IntegrityError, match="3 files in the place of one engine"):
        chosen_file(component, "sm89", folder=tmp_path, gpu="a card")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("architectures", {"model.onnx": ["sm89"]}, "none of its files"),
        ("architectures", {"model.engine": []}, "names like sm89"),
        ("architectures", {"model.engine": ["../sm89"]}, "names like sm89"),
        ("architectures", {"model.engine": ["sm89"], "model.sm75.engine": ["sm75", "sm89"]}, "each may stand once"),
        ("architectures", {"model.engine": ["sm89"]}, "weight_bytes is 57"),
        ("ranges", {"rows": [1, 2]}, "ranges have 'rows'"),
        ("ranges", {"batch": [2, 1]}, r"ranges have 'batch': \(2, 1\)"),
        ("ranges", {"batch": [0, 1]}, "a least and a most"),
        ("ranges", {"batch": [1]}, "a least and a most"),
        ("ranges", {"batch": [1, 1 << 40]}, "a least and a most"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(tmp_path: Path, key: str, value: Any, says: str) -> None:
    data = json.loads(engine(tmp_path).to_json())
    data["components"]["base/unet"][key] = value
    with pytest.raises(IntegrityError, match=says):
        Manifest.from_json(sealed(data))


def test_verify_hashes_all_of_them(tmp_path: Path) -> None:
    engine(tmp_path)
    assert verify(tmp_path).files == 3 * len(COMPONENTS) + 2, "the tokenizer and engine.json too"
    path = tmp_path / "base/unet/model.sm75.engine"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"model\.sm75\.engine was altered"):
        verify(tmp_path)
