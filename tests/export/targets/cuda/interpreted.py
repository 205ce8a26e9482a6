"""Components on a GPU that interprets our kernels' own source: what this folder's tests share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from pocketxl.engine.folder.files import WORDS_FILE, entry_of
from pocketxl.engine.folder.manifest import ComponentEntry
from pocketxl.engine.program.program import Program
from pocketxl.engine.program.slots import RANKS, SLOTS_FILE, slots_text
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.components import Component
from pocketxl.export.graph.master import WeightSource, export_master
from pocketxl.export.quantize.formats import FLOAT16, Format
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.target import quiet
from pocketxl.export.targets.cuda.component import Lowering, lowered
from pocketxl.export.targets.cuda.memory import working_memory
from pocketxl.export.targets.cuda.openings import openings_of
from pocketxl.export.targets.cuda.stored import Packer
from pocketxl.export.targets.cuda.target import SLOTTED
from pocketxl.export.targets.cuda.write import write_words
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.closed import all_variants

from ....fixtures.cuda_programs import binaries_of, fake_device
from ....fixtures.small_programs import places, write_component


@dataclass(frozen=True, kw_only=True)
class Small:
    """A component with weights of its own, as one of a checkpoint is used."""

    name: str
    module: Callable[[], nn.Module]
    spec: ComponentSpec
    weights: WeightSource


def lowering_of(component: Component | Small, formats: Format | Quantization) -> tuple[Lowering, ir.Model]:
    """With all layers in one format, or in those of a build, and slots for all of them; and the master."""
    master = export_master(component.name, component.module, component.spec, dtype=torch.float16)
    format_of = formats.format if isinstance(formats, Quantization) else lambda kind, layer: formats
    return lowered(master, component.spec, format_of, slotted=component.spec.role in SLOTTED), master


def packer_of(component: Component | Small, formats: Format | Quantization = FLOAT16) -> Packer:
    """What makes the numbers to be stored."""
    numbers = Quantization(recipe=RECIPES["fp16"], role=component.spec.role)
    return Packer(component.weights, formats if isinstance(formats, Quantization) else numbers)


def program_of(lowering: Lowering, weights: Mapping[str, np.ndarray] | None = None) -> Program:
    """The program of these calls, without binaries."""
    return Program(
        inputs=lowering.inputs, outputs=lowering.outputs, calls=lowering.calls, weights=places(weights or {})
    )


def runner_of(
    component: Component | Small, format: Format, folder: Path, *, pairs: bool = False, device: CudaDevice | None = None
) -> CudaRunner:
    """The component's runner; see `written`."""
    entry = written(component, format, folder, pairs=pairs)
    return CudaRunner(folder, component.name, entry, device or fake_device(1 << 28))


def written(
    component: Component | Small, formats: Format | Quantization, folder: Path, *, pairs: bool = False
) -> ComponentEntry:
    """The component's files in an engine's folder, and its entry; `pairs`: with kernels for the lowest ranks."""
    lowering, master = lowering_of(component, formats)
    packer, name, arch = packer_of(component, formats), component.name, architecture(89)
    weights = {name: np.ascontiguousarray(packer.array(one)) for name, one in lowering.stored.items()}
    program = program_of(lowering, weights)
    calls = [*lowering.calls, *(one for slot in lowering.slots for one in slot.calls if pairs)]
    ranked = [replace(one, shape={k: _rank(v) for k, v in one.shape.items()}) for one in calls]
    specs, content = binaries_of(dict.fromkeys(v for one in ranked for v in all_variants(one.op, one.shape, arch)))
    entry = write_component(folder, name, program, weights, {"89": specs}, content, spec=component.spec)
    more = []
    if lowering.slots:
        more.append(SLOTS_FILE)
        (folder / name / SLOTS_FILE).write_text(slots_text(lowering.slots), encoding="utf-8")
    if lowering.words is not None:
        more.append(WORDS_FILE)
        write_words(folder / name / WORDS_FILE, lowering.words, packer, quiet)
    files = (*entry.files, *(entry_of(folder, f"{name}/{file}") for file in more))
    return replace(
        entry,
        files=files,
        activation=working_memory(program, component.spec, (89,)),
        openings=openings_of(lowering.slots, master, program, component.spec, (89,)),
    )


def _rank(option: Any) -> Any:
    return int(option[5:]) * RANKS[0] if isinstance(option, str) and option.startswith("ranks") else option
