"""Hub ids: the local cache is enough, the network is asked for the rest, and never when offline is set."""

from pathlib import Path

import huggingface_hub
import pytest

from pocketxl.engine.errors import IntegrityError, StorageError
from pocketxl.export.checkpoint.open import open_checkpoint

REPOSITORY = "owner/tiny-base"


@pytest.fixture
def cache(tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds the tiny base, as links into its blobs like the real one."""
    repository = tmp_path / "models--owner--tiny-base"
    snapshot = repository / "snapshots" / ("0" * 40)
    for source in tiny_folders["base"].rglob("*.*"):
        target = snapshot / source.relative_to(tiny_folders["base"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_cached_repository_opens_offline(cache: Path, tiny_folders: dict[str, Path]) -> None:
    assert (
        open_checkpoint(REPOSITORY).weights("vae").digest()
        == open_checkpoint(tiny_folders["base"]).weights("vae").digest()
    )


def test_file_that_the_cache_lacks_is_named(cache: Path) -> None:
    (cache / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"vae/diffusion_pytorch_model\.safetensors is missing"):
        open_checkpoint(REPOSITORY)


def test_offline_says_so_and_what_to_do(cache: Path) -> None:
    with pytest.raises(StorageError, match=r"owner/other is not in the local cache .* HF_HUB_OFFLINE is set"):
        open_checkpoint("owner/other")


def test_name_that_the_hub_does_not_allow(cache: Path) -> None:
    with pytest.raises(StorageError, match="neither a folder nor a name"):
        open_checkpoint("owner/a--b")


def test_unreachable_hub_is_a_storage_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str, *, local_files_only: bool = False, allow_patterns: object = None) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(StorageError, match=r"cannot be fetched \(ConnectionError\); check the name and the network"):
        open_checkpoint(REPOSITORY)


def test_download_takes_the_16_bit_files_when_there_are_any(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def download(repository: str, *, local_files_only: bool = False, allow_patterns: list[str] | None = None) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        asked.append(allow_patterns or [])
        return str(cache if "*/*.safetensors" in asked[-1] else cache / "tokenizer")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert open_checkpoint(REPOSITORY).kind == "base"
    assert ["*/*.fp16.safetensors" in patterns for patterns in asked] == [True, False]
    assert not any("bin" in pattern for patterns in asked for pattern in patterns)
