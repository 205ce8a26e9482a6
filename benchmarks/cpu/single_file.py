"""A diffusers folder as one file, as stable-diffusion.cpp takes it from cyllama: names as it gives a folder's parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..weight_files import described, write_weights

PREFIXES: Final[Mapping[str, str]] = {
    "unet": "unet.",
    "vae": "vae.",
    "text_encoder": "te.",
    "text_encoder_2": "te.1.",
}


def write_single_file(folder: Path, out: Path) -> None:
    """Copy every part's tensors to `out`, one after another; a part is one file."""
    from safetensors import safe_open

    parts = {prefix: next((folder / part).glob("*.safetensors")) for part, prefix in PREFIXES.items()}
    tensors: dict[str, tuple[Any, tuple[int, ...]]] = {}
    places: dict[str, tuple[Path, str]] = {}
    for prefix, path in parts.items():
        for name, there in described(path).items():
            tensors[prefix + name], places[prefix + name] = there, (path, name)

    def make(name: str) -> np.ndarray:
        path, own = places[name]
        with safe_open(str(path), "np") as file:
            found: np.ndarray = file.get_tensor(own)
        return found

    aside = out.with_name(f"{out.name}.part")
    write_weights(aside, tensors, make)
    aside.replace(out)
