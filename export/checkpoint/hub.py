"""Finds a checkpoint of the Hugging Face hub in the local cache, and fetches it when the network is allowed."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...engine.errors import IncompatibleError, StorageError
from ...engine.install import install_advice

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
CONFIGS = ("model_index.json", "*/config.json", "scheduler/*.json", "tokenizer*/*")
# The 16-bit files when there are any: the same pictures for half the download.
WEIGHTS = (("*/*.fp16.safetensors", "*/*.fp16*.json"), ("*/*.safetensors", "*/*.safetensors.index.json"))


def snapshot(repository: str) -> Path:
    """The folder of a hub repository such as `stabilityai/stable-diffusion-xl-base-1.0`.

    Whatever the cache holds is used as it is; only a repository that is not there is fetched, and never when
    HF_HUB_OFFLINE is set. `StorageError` when it can be had neither way, `IncompatibleError` without huggingface_hub.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise IncompatibleError(
            f"{repository} is on the hub, which needs huggingface_hub; {install_advice('export')}"
        ) from error
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
        if _has_weights(folder) or huggingface_hub.constants.HF_HUB_OFFLINE:
            return folder
    except HFValidationError as error:
        raise StorageError(f"{repository} is neither a folder nor a name that the hub allows; check it.") from error
    except LocalEntryNotFoundError as error:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise StorageError(
                f"{repository} is not in the local cache ({huggingface_hub.constants.HF_HUB_CACHE}) and HF_HUB_OFFLINE "
                "is set; unset it, or give a folder or a .safetensors file."
            ) from error
    for weights in WEIGHTS:
        folder = _download(repository, (*CONFIGS, *weights))
        if _has_weights(folder):
            break
    return folder


def _download(repository: str, patterns: Sequence[str]) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(patterns)))
    except Exception as error:  # its errors come from several network libraries
        raise StorageError(
            f"{repository} is not in the local cache ({huggingface_hub.constants.HF_HUB_CACHE}) and cannot be fetched "
            f"({type(error).__name__}); check the name and the network, or give a folder or a .safetensors file."
        ) from error


def _has_weights(folder: Path) -> bool:
    encoders = [*folder.glob("text_encoder*/*.safetensors")]
    return bool(encoders) and all(any((folder / name).glob("*.safetensors")) for name in ("unet", "vae"))
