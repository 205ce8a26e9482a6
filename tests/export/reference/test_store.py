"""Parts of the reference run come back to the bit, or not at all."""

from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.errors import StorageError
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.reference.store import KeptCall, Part, ReferenceStore
from pocketxl.export.reference.stored import stored_calibration, stored_samples

from ...fixtures.calibration import assert_equal, shown


def seen(seed: int) -> Calibration:
    random = np.random.default_rng(seed)
    layer = shown(random.standard_normal((4, 3), np.float32), random.standard_normal((4, 2), np.float32))
    return Calibration(layers={"conv": layer}, streams={"norm": np.array([0.1], np.float32)})


def part(seed: int) -> Part:
    random = np.random.default_rng(seed)
    sample = ({"ids": np.arange(3)}, {"states.0": random.standard_normal((1, 3), np.float32)})
    return Part(
        picture=random.random((8, 8, 3)),
        samples={"base/unet": [sample, sample], "vae_decoder": []},
        calibration={"base/unet": seen(seed), "vae_decoder": Calibration()},
        rows={"base/unet": 5, "vae_decoder": 1},
    )


def test_a_part_comes_back_to_the_bit(tmp_path: Path) -> None:
    ReferenceStore(tmp_path / "reference", "key").write(0, part(0))
    found, expected = ReferenceStore(tmp_path / "reference", "key").read(0), part(0)
    assert found is not None
    assert found.picture.dtype == expected.picture.dtype
    np.testing.assert_array_equal(found.picture, expected.picture)
    assert found.rows == expected.rows
    assert found.calibration.keys() == expected.calibration.keys()
    for name, calibration in expected.calibration.items():
        assert_equal(found.calibration[name], calibration)
    assert found.samples.keys() == expected.samples.keys()
    for actual, wanted in zip(found.samples["base/unet"], expected.samples["base/unet"], strict=True):
        for side in (0, 1):
            assert actual[side].keys() == wanted[side].keys()
            for name, array in wanted[side].items():
                assert actual[side][name].dtype == array.dtype
                np.testing.assert_array_equal(actual[side][name], array)


def test_a_component_is_read_alone_and_no_other_s_arrays(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "key")
    store.write(0, part(0))
    store.write(1, part(1))
    assert_equal(store.read_calibration(1, "base/unet"), seen(1))
    assert [s[1]["states.0"].tolist() for s in store.read_samples(1, "base/unet")] == [
        s[1]["states.0"].tolist() for s in part(1).samples["base/unet"]
    ]
    assert store.read_samples(0, "vae_decoder") == []
    assert store.read_calibration(0, "vae_decoder").layers == {}
    both = stored_calibration(store, 2, ["base/unet", "vae_decoder"])
    assert_equal(both["base/unet"], Calibration.of_runs([seen(0), seen(1)]))
    assert both["base/unet"] is both["base/unet"], "read once"
    assert len(stored_samples(store, 2, ["base/unet"])["base/unet"]) == 4
    (tmp_path / "1.safetensors").write_bytes(b"PK")
    with pytest.raises(StorageError, match=r"1\.safetensors was altered while it was in use"):
        store.read_samples(1, "base/unet")


def test_another_key_finds_nothing_and_clears_the_folder(tmp_path: Path) -> None:
    old, new = ReferenceStore(tmp_path, "old"), ReferenceStore(tmp_path, "new")
    old.write(0, part(0))
    old.write(1, part(1))
    assert new.read(0) is None
    new.write(0, part(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "0.safetensors"]


def test_a_build_beside_may_have_removed_what_this_one_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that keep the same run in one folder finish a picture at once."""
    store, beside = ReferenceStore(tmp_path, "key"), ReferenceStore(tmp_path, "key")
    call = KeptCall(component="unet", outputs={"sample": np.ones(3, np.float32)}, calibration=seen(0))
    for number in range(3):
        store.write_call(0, number, call)
    found = list(tmp_path.glob("0.*.json"))
    beside.write(0, part(0))
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(found))  # listed before the other removed them
    store.write(0, part(0))
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "0.safetensors"]


def test_calls_are_kept_until_their_picture_is_done(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "key")
    assert store.calls(0) == 0
    for number in range(2):
        outputs = {"y": np.full((1, 2), number, np.float32)}
        store.write_call(0, number, KeptCall(component="base/unet", outputs=outputs, calibration=seen(number)))
    assert (store.calls(0), ReferenceStore(tmp_path, "other").calls(0)) == (2, 0)
    found = ReferenceStore(tmp_path, "key").read_call(0, 1)
    assert found is not None
    assert found.component == "base/unet"
    assert_equal(found.calibration, seen(1))
    np.testing.assert_array_equal(found.outputs["y"], np.ones((1, 2), np.float32))
    (tmp_path / "0.0.safetensors").write_bytes(b"PK")
    assert (store.read_call(0, 0), store.calls(0)) == (None, 0)
    store.write(0, part(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "0.safetensors"]


@pytest.mark.parametrize("file", ["0.json", "0.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 100_000, b"\xff", b"PK\x03\x04"])
def test_a_damaged_part_is_made_again(tmp_path: Path, file: str, damage: bytes) -> None:
    store = ReferenceStore(tmp_path, "key")
    store.write(0, part(0))
    assert store.read(0) is not None
    (tmp_path / file).write_bytes(damage)
    assert store.read(0) is None
