"""One component of an engine by itself, built from a network's random weights: the exporter's way, no gate."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from pocketxl.engine.architecture import UNetArchitecture, VaeArchitecture
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.folder.schema import decode, encode
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.quantize.formats import A8_SCORES_TOKEN
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.rounded import Floats
from pocketxl.export.quantize.score_blocks import ScoreBlocks
from pocketxl.export.target import Target
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cuda.target import CudaTarget

from .networks import Network
from .scales import input_scales

if TYPE_CHECKING:
    import onnx_ir as ir
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
    configuration: UNetArchitecture | VaeArchitecture

    def heads(self) -> dict[str, int]:
        """Self-attention → how many heads it has."""
        import torch

        from pocketxl.engine.models.blocks import SelfAttention

        with torch.device("meta"):
            module = self.module()
        return {name: layer.heads for name, layer in module.named_modules() if isinstance(layer, SelfAttention)}


def parts_of(network: Network) -> Parts:
    """The component's name, its edge and our module."""
    if network.name == "vae":
        from pocketxl.engine.models.vae import VaeDecoder

        vae = network.vae_architecture
        return Parts(name="vae_decoder", spec=vae.decoder(), module=lambda: VaeDecoder(vae), configuration=vae)
    from pocketxl.engine.models.unet import UNet

    unet = network.architecture
    return Parts(name=f"{network.name}/unet", spec=unet.unet(), module=lambda: UNet(unet), configuration=unet)


def numbers_of(
    recipe: str, parts: Parts, target: Target, scales: "Callable[[], Mapping[str, Floats]]" = dict
) -> Quantization:
    """The recipe's own formats; no layer has more bits, and no attention floats, as none was measured.

    `scales`: those of inputs, asked for where the recipe takes int8 of a range that is known before.
    """
    chosen = target.suited(fitted(RECIPES[recipe], target), parts.configuration)
    formats = {format for found in chosen.formats(parts.spec.role).values() for format in found}
    known = scales() if any(format.signed for format in formats) else {}
    attentions = {}
    if any(format == A8_SCORES_TOKEN for format in formats):
        attentions = {name: ScoreBlocks(heads=heads, values=0.0) for name, heads in parts.heads().items()}
    return Quantization(recipe=chosen, role=parts.spec.role, input_scales=known, attentions=attentions)


def lowered_parts(parts: Parts, numbers: Quantization) -> "Lowering":
    """The component's calls, without weights. Raises `IncompatibleError` for what there is no kernel for."""
    from pocketxl.export.targets.cuda.component import lowered

    return lowered(_master(parts), parts.spec, numbers.format)


def build_component(network: Network, recipe: str, folder: Path, target: Target) -> ComponentEntry:
    """Write the component's files under `folder`, an engine folder to be; one that is there already stays as it is."""
    parts, begin = parts_of(network), time.perf_counter()
    there = folder / parts.name
    if (folder / ENTRY).exists():
        return decode(ComponentEntry, json.loads((folder / ENTRY).read_text(encoding="utf-8")), ENTRY)
    there.mkdir(parents=True, exist_ok=True)
    numbers = numbers_of(recipe, parts, target, lambda: input_scales(network))
    if isinstance(target, CudaTarget):
        _write_program(network, parts, numbers, there, target)
    else:
        with TemporaryDirectory(dir=folder) as aside:
            target.lower(parts.name, parts.spec, _master(parts), network.weights, numbers, there, Path(aside))
    names = sorted(path.name for path in there.iterdir())
    files = tuple(entry_of(folder, f"{parts.name}/{name}") for name in names)
    entry = ComponentEntry(
        spec=parts.spec,
        runner=target.runner,
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={"1": 0.0}),  # of interest to a plan only
    )
    sys.stderr.write(f"{parts.name} {target.name} {recipe}: built in {time.perf_counter() - begin:.0f} s\n")
    (folder / ENTRY).write_text(json.dumps(encode(entry)), encoding="utf-8")
    return entry


def _write_program(network: Network, parts: Parts, numbers: Quantization, there: Path, target: CudaTarget) -> None:
    """As the target does it, without the stand-in, which nobody asks for here."""
    from pocketxl.export.targets.cuda.component import write_component
    from pocketxl.export.targets.cuda.stored import Packer

    write_component(
        lowered_parts(parts, numbers),
        Packer(network.weights, numbers),
        there,
        target.architectures,
        jobs=os.cpu_count() or 1,
        tell=lambda text: None,
    )


def _master(parts: Parts) -> "ir.Model":
    import torch

    from pocketxl.export.graph.master import export_master

    return export_master(parts.name, parts.module, parts.spec, dtype=torch.float16)
