"""A full-size SDXL checkpoint of random weights: `python -m benchmarks.random_checkpoint FOLDER [--kind base refiner]`.

Writes `FOLDER/base` and `FOLDER/refiner` as diffusers folders in float16, from the bundled configurations, one tensor
at a time. Layers keep the variance of what they are given and residual branches add little, so that activations stay
finite over a whole denoising run; the pictures are noise. For measuring speed and memory without the real weights; with
`--tails` and `--outliers 30`, also for what quantization loses on weights of that shape.
"""

import argparse
import gzip
import json
import math
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketxl.export.checkpoint import tokenizer_files
from pocketxl.export.checkpoint.tokenizer_files import parse_merges, read_tokenizer

from .outliers import Shapes, outliers, scaled
from .stress import linear, student_t
from .weight_files import write_weights

CONFIGS = Path(tokenizer_files.__file__).parent / "configs"
# The last layer of every residual branch is scaled down by this: a hundred of them must not blow the sum up.
BRANCH_ENDS = ("to_out.0", "ff.net.2", "proj_out", "conv2", "out_proj", "fc2")
BRANCH_GAIN = 0.3
WEIGHT_FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}


def component_shapes(component: str, config: Mapping[str, Any]) -> Shapes:
    """State-dict names and shapes of diffusers' or transformers' own class for this configuration."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        if component == "unet":
            module: Any = UNet2DConditionModel.from_config(dict(config))
        elif component == "vae":
            module = AutoencoderKL.from_config(dict(config))
        else:
            kind = CLIPTextModelWithProjection if component == "text_encoder_2" else CLIPTextModel
            module = kind(CLIPTextConfig(**config))
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@dataclass(frozen=True, kw_only=True)
class Hardness:
    """What makes such weights hard to quantize; by default nothing."""

    tails: str | None = None
    """Whose weights are from Student's t with 3 degrees of freedom: `linear` layers', or `all` (convolutions' too)."""
    outliers: float = 1.0
    """How much larger 1 % of the channels are, wherever the next layer can take that back (see `outliers`)."""


def deviation(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a weight of two dimensions or more that keeps the variance of what its layer is given."""
    layer = name.rpartition(".")[0]
    if _embeds(layer):
        return 0.02
    return (BRANCH_GAIN if layer.endswith(BRANCH_ENDS) else 1.0) / math.sqrt(math.prod(shape[1:]))


def _embeds(layer: str) -> bool:
    return "embedding" in layer.rsplit(".", 1)[-1]


def random_tensor(name: str, shape: tuple[int, ...], tails: str | None = None) -> npt.NDArray[np.float32]:
    """The tensor of that name: the same numbers on every machine."""
    layer, _, part = name.rpartition(".")
    if len(shape) < 2:
        norm = part == "weight"  # only norms have weights of one dimension
        return np.full(shape, 1.0 if norm else 0.0, np.float32)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    std = deviation(name, shape)
    if tails is not None and not _embeds(layer) and (tails == "all" or linear(name, shape)):
        return student_t(rng, shape, std)
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= std
    return values


def write_random(path: Path, shapes: Shapes, hardness: Hardness = Hardness()) -> None:
    """Write a safetensors file tensor by tensor, float16."""
    changes = {} if hardness.outliers == 1 else outliers(shapes, factor=hardness.outliers)

    def make(name: str) -> npt.NDArray[np.float16]:
        values = random_tensor(name, shapes[name], hardness.tails)
        return (scaled(values, changes[name]) if name in changes else values).astype(np.float16)

    write_weights(path, {name: (np.float16, shape) for name, shape in shapes.items()}, make)


def write_checkpoint(folder: Path, kind: str, hardness: Hardness = Hardness()) -> Path:
    """Write `folder/kind`, a whole diffusers folder of one of the bundled configurations; returns its path."""
    source, target = CONFIGS / kind, folder / kind
    merges = parse_merges(gzip.decompress((CONFIGS / "clip_merges.txt.gz").read_bytes()).decode())
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "model_index.json", target)
    for part in sorted(p for p in source.iterdir() if p.is_dir()):
        place = target / part.name
        place.mkdir(exist_ok=True)
        if part.name.startswith("tokenizer"):
            for name, content in read_tokenizer(part, merges).items():
                (place / name).write_bytes(content)
            continue
        for config in part.glob("*.json"):
            shutil.copy(config, place)
        if part.name in WEIGHT_FILES:
            shapes = component_shapes(part.name, json.loads((part / "config.json").read_text(encoding="utf-8")))
            write_random(place / WEIGHT_FILES[part.name], shapes, hardness)
    return target


def main() -> None:
    """Write the folders that the command line names."""
    parser = argparse.ArgumentParser(prog="benchmarks.random_checkpoint", description=(__doc__ or "").split(":")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", nargs="+", choices=("base", "refiner", "sd15", "sd21"), default=["base", "refiner"])
    parser.add_argument(
        "--tails", nargs="?", choices=("linear", "all"), const="all", help="weights from Student's t (default: all)"
    )
    parser.add_argument("--outliers", type=float, default=1.0, help="1 %% of the channels that many times as large")
    arguments = parser.parse_args()
    hardness = Hardness(tails=arguments.tails, outliers=arguments.outliers)
    for kind in arguments.kind:
        print(write_checkpoint(arguments.folder, kind, hardness))


if __name__ == "__main__":
    main()
