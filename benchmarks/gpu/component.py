"""One component of a `cuda` engine by itself, built from a network's random weights: the exporter's way, no gate."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.folder.schema import decode, encode
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cuda.target import CudaTarget

from .networks import Network

if TYPE_CHECKING:
    from torch import nn

    from pocketxl.export.targets.cuda.component import Lowering

ENTRY: Final = "entry.json"
"""Written last: a folder that has it is whole."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the exporter is told of a network."""

    name: str
    spec: ComponentSpec
    module: "Callable[[], nn.Module]"


def parts_of(network: Network) -> Parts:
    """The component's name, its edge and our module."""
    if network.name == "vae":
        from pocketxl.engine.models.vae import VaeDecoder

        vae = network.vae_architecture
        return Parts(name="vae_decoder", spec=vae.decoder(), module=lambda: VaeDecoder(vae))
    from pocketxl.engine.models.unet import UNet

    unet = network.architecture
    return Parts(name=f"{network.name}/unet", spec=unet.unet(), module=lambda: UNet(unet))


def numbers_of(recipe: str, parts: Parts, target: CudaTarget) -> Quantization:
    """The recipe's own formats; no layer has more bits, as none was measured."""
    return Quantization(recipe=fitted(RECIPES[recipe], target), role=parts.spec.role)


def lowered_parts(parts: Parts, numbers: Quantization) -> "Lowering":
    """The component's calls, without weights. Raises `IncompatibleError` for what there is no kernel for."""
    import torch

    from pocketxl.export.graph.master import export_master
    from pocketxl.export.targets.cuda.component import lowered

    return lowered(export_master(parts.name, parts.module, parts.spec, dtype=torch.float16), parts.spec, numbers.format)


def build_component(network: Network, recipe: str, folder: Path, architectures: Sequence[int]) -> ComponentEntry:
    """Write the component's files under `folder`, an engine folder to be; one that is there already stays as it is."""
    from pocketxl.export.targets.cuda.component import write_component
    from pocketxl.export.targets.cuda.stored import Packer

    parts, begin = parts_of(network), time.perf_counter()
    there = folder / parts.name
    if (folder / ENTRY).exists():
        return decode(ComponentEntry, json.loads((folder / ENTRY).read_text(encoding="utf-8")), ENTRY)
    there.mkdir(parents=True, exist_ok=True)
    numbers = numbers_of(recipe, parts, CudaTarget(name="cuda", architectures=tuple(architectures)))
    write_component(
        lowered_parts(parts, numbers),
        Packer(network.weights, numbers),
        there,
        architectures,
        jobs=os.cpu_count() or 1,
        tell=lambda text: None,
    )
    names = sorted(path.name for path in there.iterdir())
    files = tuple(entry_of(folder, f"{parts.name}/{name}") for name in names)
    entry = ComponentEntry(
        spec=parts.spec,
        runner="cuda",
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={"1": 0.0}),  # of interest to a plan only
    )
    sys.stderr.write(f"{parts.name} {recipe}: built in {time.perf_counter() - begin:.0f} s\n")
    (folder / ENTRY).write_text(json.dumps(encode(entry)), encoding="utf-8")
    return entry
