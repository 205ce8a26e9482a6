"""`engine.json` round-trips, equals itself byte for byte, and every altered byte is found."""

import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import IncompatibleError, IntegrityError, NumericError
from pocketxl.engine.folder import files, manifest
from pocketxl.engine.folder.files import FileEntry, entry_of
from pocketxl.engine.folder.manifest import ActivationModel, Manifest, checked_path, read_manifest, verify
from pocketxl.engine.folder.schema import encode

from ...fixtures.manifests import COMPONENTS, described, entry


def engine(folder: Path) -> Manifest:
    """An engine folder with a graph for each component, weights for one, and a tokenizer."""
    contents = {f"{name}/model.onnx": f"graph of {name}".encode() for name in COMPONENTS}
    contents |= {"base/unet/weights": b"weights" * 9, "tokenizer/vocab.json": b"{}"}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    files = {
        name: [entry_of(folder, path) for path in contents if path.rpartition("/")[0] == name] for name in COMPONENTS
    }
    components = {name: entry(name, files[name]) for name in COMPONENTS}
    quality = {"relative_error": 0.01, "psnr_db": math.inf}
    made = described(
        {**components, "base/unet": dataclasses.replace(components["base/unet"], quality=quality)},
        [entry_of(folder, "tokenizer/vocab.json")],
        tools={"onnx": "1"},
        build_key={"recipe": "int8"},
        created_by="test",
    )
    (folder / "engine.json").write_text(made.to_json())
    return made


def resealed(text: str, **changes: object) -> str:
    """The text with changes and a fitting digest, as another release would have written it."""
    data = {**json.loads(text), **changes}
    del data["sha256"]
    return manifest._canonical({**data, "sha256": manifest._digest(data)})


def test_round_trip_is_equal_and_byte_identical(tmp_path: Path) -> None:
    made = engine(tmp_path)
    read = read_manifest(tmp_path)
    assert read == made
    assert read.to_json() == made.to_json() == (tmp_path / "engine.json").read_text()
    assert read.models.native_size == 128
    paths = [*(f"{name}/model.onnx" for name in COMPONENTS), "base/unet/weights", "tokenizer/vocab.json"]
    assert [f.path for f in read.files] == sorted(paths)


def test_every_flipped_byte_of_every_file_is_found(tmp_path: Path) -> None:
    engine(tmp_path)
    assert verify(tmp_path).files == 7
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        for i in range(0, len(content), max(1, len(content) // 40)):
            path.write_bytes(content[:i] + bytes([content[i] ^ 0x01]) + content[i + 1 :])
            with pytest.raises(IntegrityError):
                verify(tmp_path)
        path.write_bytes(content)
    verify(tmp_path)


def test_every_byte_of_engine_json_counts(tmp_path: Path) -> None:
    text = engine(tmp_path).to_json()
    for i in range(0, len(text), 7):
        for altered in (text[:i] + chr(ord(text[i]) ^ 0x01) + text[i + 1 :], text[:i] + " " + text[i:], text[:i]):
            with pytest.raises(IntegrityError):
                Manifest.from_json(altered)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}'])
def test_text_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "engine.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"engine\.json"):
        read_manifest(tmp_path)


def test_a_missing_manifest_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="pocketxl build"):
        read_manifest(tmp_path / "nowhere")


def test_unknown_keys_missing_keys_and_wrong_types_are_named(tmp_path: Path) -> None:
    text = engine(tmp_path).to_json()
    with pytest.raises(IntegrityError, match=r"unknown keys.*surprise"):
        Manifest.from_json(resealed(text, surprise=1))
    with pytest.raises(IntegrityError, match="target must be str"):
        Manifest.from_json(resealed(text, target=3))
    with pytest.raises(IntegrityError, match=r"vae.*unknown keys.*x"):
        Manifest.from_json(resealed(text, models={"denoisers": {}, "text_encoders": {}, "vae": {"x": 1}}))
    with pytest.raises(IntegrityError, match="components must be an object"):
        Manifest.from_json(resealed(text, components=[]))
    with pytest.raises(IntegrityError, match=r"components\.a lacks the keys"):
        Manifest.from_json(resealed(text, components={"a": {"runner": "ort"}}))


def test_a_field_of_another_version_is_told_with_its_maker_and_the_fix(tmp_path: Path) -> None:
    text = engine(tmp_path).to_json()
    with pytest.raises(IntegrityError, match=r"unknown keys.*another version \(pocketxl 0\.0\).*`pocketxl build`"):
        Manifest.from_json(resealed(text, sampler="euler", created_by="pocketxl 0.0"))


def test_a_newer_format_asks_for_a_newer_release(tmp_path: Path) -> None:
    text = engine(tmp_path).to_json()
    with pytest.raises(IncompatibleError, match="install a newer pocketxl"):
        Manifest.from_json(resealed(text, format=manifest.FORMAT + 1, whatever="it holds"))


def test_nan_is_not_written() -> None:
    with pytest.raises(NumericError):
        encode({"psnr_db": math.nan})


def test_extra_files_are_named_and_do_no_harm(tmp_path: Path) -> None:
    engine(tmp_path)
    litter = (".DS_Store", "base/Thumbs.db", "desktop.ini", "base/._model.onnx")
    for name in ("base/stray.bin", "note.txt", *litter):
        (tmp_path / name).write_bytes(b"x")
    assert verify(tmp_path).unknown == ("base/stray.bin", "note.txt")
    (tmp_path / "base/unet/weights").unlink()
    with pytest.raises(IntegrityError, match="weights is missing; build"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../outside", "base/../../outside", "base//x", "./x", ".", "a\\b", "C:x", ""]
)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(IntegrityError, match="refused"):
        checked_path(tmp_path, FileEntry(path=path, sha256="0" * 64, size=0))


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    (folder / "real").write_bytes(b"x")
    (folder / "inside").symlink_to("real")
    (folder / "escape").symlink_to("../outside")
    entry = entry_of(folder, "inside")
    assert checked_path(folder, entry) == folder / "inside"
    with pytest.raises(IntegrityError, match="link out of it"):
        checked_path(folder, dataclasses.replace(entry, path="escape"))


def test_a_hub_cache_of_links_into_blobs_verifies(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    engine(snapshot)
    blobs.mkdir()
    for i, path in enumerate([p for p in snapshot.rglob("*") if p.is_file()]):
        path.rename(blobs / str(i))
        path.symlink_to(Path(os.path.relpath(blobs / str(i), path.parent)))
    verify(snapshot)


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path)
    entry = read_manifest(tmp_path).files[0]
    calls = []
    original = files._sha256

    def counted(*args: Any) -> str:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(files, "_sha256", counted)
    checked_path(tmp_path, entry)
    checked_path(tmp_path, entry)
    assert len(calls) == 1
    path = tmp_path / entry.path
    path.write_bytes(path.read_bytes().upper())
    os.utime(path, ns=(1, 1))
    with pytest.raises(IntegrityError, match="altered"):
        checked_path(tmp_path, entry)


def test_a_file_that_a_build_hashed_is_not_hashed_again_to_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"some")
    os.utime(path, ns=(1, 1))  # as if it had been written long ago
    entry = entry_of(tmp_path, "weights")
    monkeypatch.setattr(files, "_sha256", None)
    assert entry_of(tmp_path, "weights") == entry
    assert checked_path(tmp_path, entry) == path


def test_a_file_written_just_now_is_hashed_again_lest_the_next_write_has_the_same_time(tmp_path: Path) -> None:
    path, now = tmp_path / "weights", time.time_ns()
    path.write_bytes(b"some")
    os.utime(path, ns=(now, now))
    entry = entry_of(tmp_path, "weights")
    path.write_bytes(b"evil")
    os.utime(path, ns=(now, now))
    with pytest.raises(IntegrityError, match="altered"):
        checked_path(tmp_path, entry)


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    engine(tmp_path)
    seen: list[int] = []
    report = verify(tmp_path, seen.append)
    assert sum(seen) == report.bytes - (tmp_path / "engine.json").stat().st_size


def test_activation_model_multiplies_the_named_sizes() -> None:
    model = ActivationModel(terms={"1": 10.0, "batch*pixels": 2.0, "batch*pixels*pixels": 0.5, "steps*batch": 1.0})
    assert model.bytes_at(4, batch=3, steps=5) == 10 + 24 + 24 + 15
