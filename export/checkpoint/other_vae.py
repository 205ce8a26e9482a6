"""A VAE from another place than its checkpoint: `--vae`."""

from dataclasses import dataclass
from pathlib import Path

from ...engine.architecture import VaeArchitecture
from ...engine.errors import IncompatibleError, StorageError
from ...engine.stored.header import SUFFIXES, read_header, refuse_pickle
from .diffusers_layout import STEMS, canonical
from .original_layout import VAE, Tensors, below, map_vae
from .settings import BUNDLED
from .weights import Weights, open_weights

ALONE = ("decoder.conv_in.weight", "decoder.conv_out.weight")
"""Tensors of a VAE's file in either layout."""


@dataclass(frozen=True, kw_only=True)
class OtherVae:
    """Where a VAE lies. `config`: its own configuration, which a folder has and a file has not."""

    path: Path
    config: Path | None

    def config_beside(self, folder: Path | None) -> Path:
        """The configuration that describes it: its own, or that of the checkpoint, or the public models'."""
        beside = None if folder is None else folder / "vae/config.json"
        return self.config or (beside if beside is not None and beside.is_file() else BUNDLED / "base/vae/config.json")

    def weights(self, architecture: VaeArchitecture) -> Weights:
        """Its tensors by diffusers' names, from a folder, a VAE's file in either layout, or a whole checkpoint's."""
        if self.config is not None:
            return canonical("vae", open_weights(self.config.parent, STEMS["vae"]))
        tensors: Tensors = read_header(self.path).tensors
        tensors = below(tensors, VAE) or tensors
        if not all(name in tensors for name in ALONE):
            raise IncompatibleError(
                f"{self.path} holds no VAE; --vae takes a VAE's .safetensors file, a checkpoint's that has one, or a "
                "diffusers folder with config.json"
            )
        if any(name.startswith("decoder.mid_block.") for name in tensors):
            return canonical("vae", Weights(tensors))
        return Weights(map_vae(tensors, architecture, self.path))


def find_vae(path: Path) -> OtherVae:
    """What lies at `path`; nothing is read yet. `StorageError` when it does not exist."""
    refuse_pickle(path)
    if path.is_dir():
        whole = not (path / "config.json").is_file() and (path / "vae").is_dir()
        return OtherVae(path=path, config=path / ("vae/config.json" if whole else "config.json"))
    if not path.is_file():
        raise StorageError(f"{path} does not exist; --vae takes a .safetensors file or a diffusers folder")
    if path.suffix.lower() not in SUFFIXES:
        raise IncompatibleError(f"{path} is no .safetensors file; --vae takes one, or a diffusers folder")
    return OtherVae(path=path, config=None)
