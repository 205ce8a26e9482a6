"""What LoRAs cost on a processor: `python -m benchmarks.lora [--side 1024] [--threads 1] [--engine FOLDER]`.

A U-Net of the base's widths and least depth (that of `benchmarks.unet_operators`), or with `--engine` the base U-Net of
an engine for `cpu`, runs as its plain graph, as an open graph without any pair, and as that with pairs of `--rank` on
all layers that it takes them for, in turn in one process: for each open graph anew, beside the plain one (twice the
memory). The processor's time is kept, which other work on the machine does not lengthen by waiting, and the least time
by the clock. What a swap takes is told too: making the inputs of a LoRA that is read already, and of two joined. The
last line on standard output is one JSON object.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pocketxl.engine.adapters.additions import additions
from pocketxl.engine.adapters.pairs import Lora, Pair
from pocketxl.engine.folder.activation import ActivationModel
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ComponentEntry, read_manifest
from pocketxl.engine.folder.openings import Openings
from pocketxl.engine.runners.base import Held, Runner
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner
from pocketxl.engine.specs import Arrays, ComponentSpec

from . import report
from .unet_operators import lower, shallow

NAME = "base/unet"


def random_lora(openings: Openings, groups: tuple[str, ...], rank: int, seed: int = 0) -> Lora:
    """Pairs for every layer of these groups, parts of layers by themselves."""
    random = np.random.default_rng(seed)
    pairs = {
        layer: Pair(
            down=random.standard_normal((rank, *shape[1:]), np.float32) * np.float32(0.01),
            up=random.standard_normal((shape[0], rank), np.float32) * np.float32(0.01),
        )
        for layer, shape in openings.shapes(groups).items()
    }
    return Lora(name=f"random-{seed}", pairs={NAME: pairs})


def inputs(spec: ComponentSpec, side: int) -> Arrays:
    """Normal numbers for a picture of that side."""
    sizes: Mapping[str, int] = {"batch": 1, "tokens": 77, "height": side // 8, "width": side // 8}
    random = np.random.default_rng(0)
    return {
        tensor.name: random.standard_normal(
            [sizes[length] if isinstance(length, str) else length for length in tensor.shape], dtype=np.float32
        )
        for tensor in spec.inputs
    }


def shallow_entry(root: Path) -> ComponentEntry:
    """The shallow U-Net in a folder of its own, described as an engine would."""
    architecture, folder = shallow(), root / NAME
    folder.mkdir(parents=True)
    openings = lower(architecture, folder).openings
    files = tuple(entry_of(root, f"{NAME}/{file.name}") for file in folder.iterdir())
    return ComponentEntry(
        spec=architecture.unet(), runner="ort", files=files, weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={}), int8_bytes=1, openings=openings,
    )  # fmt: skip


def flat(layers: Mapping[str, Arrays]) -> Arrays:
    """The inputs of all layers."""
    return {name: array for layer in layers.values() for name, array in layer.items()}


def compare(forms: Mapping[str, tuple[Runner, Held]], feeds: Arrays, runs: int) -> dict[str, tuple[float, float]]:
    """Form → least seconds of the processor and by the clock of a call; all in turn."""
    for runner, held in forms.values():  # packs weights, grows arenas
        runner(feeds, held)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for _ in range(runs):
        for name, (runner, held) in forms.items():
            started = time.process_time(), time.perf_counter()
            runner(feeds, held)
            taken[name].append((time.process_time() - started[0], time.perf_counter() - started[1]))
    return {name: (min(cpu for cpu, _ in found), min(wall for _, wall in found)) for name, found in taken.items()}


def main() -> int:
    """Lower or open, run all forms in turn, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lora", description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="of the picture, in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--engine", type=Path, help="an engine folder, in place of the shallow network")
    options = parser.parse_args()
    records: list[report.Record] = []
    case = f"unet_{options.side}_b1" + ("" if options.engine else "_shallow")

    def keep(system: str, metric: str, value: float, unit: str) -> None:
        print(f"{system:32} {metric:20} {value:.4f} {unit}", file=sys.stderr)
        records.append(report.Record(case=case, system=system, metric=metric, value=value, unit=unit))

    with TemporaryDirectory() as folder:
        root = options.engine or Path(folder)
        entry = read_manifest(root).components[NAME] if options.engine else shallow_entry(root)
        plain = OrtRunner(root, NAME, entry, OrtDevice(threads=options.threads))
        feeds, openings = inputs(entry.spec, options.side), entry.openings
        if openings is None:
            parser.error(f"{root} has no open graphs; build it again")
        for graph in openings.graphs:
            opened, name = plain.opened(graph), Path(graph.file).stem
            loras = [(random_lora(openings, graph.groups, options.rank, seed), 0.5) for seed in range(2)]
            for count in (2, 1):
                started = time.process_time(), time.perf_counter()
                held = opened.hold(flat(additions(loras[:count], NAME, openings, {})))
                system = f"{name}, {count} of rank {options.rank}"
                keep(system, "swap_processor_seconds", time.process_time() - started[0], "s")
                keep(system, "swap_seconds", time.perf_counter() - started[1], "s")
            forms: dict[str, Any] = {
                "plain": (plain, plain.hold({})),
                f"{name}, no pairs": (opened, opened.hold({})),
                f"{name}, 1 of rank {options.rank}": (opened, held),
            }
            found = compare(forms, feeds, options.runs)
            for form, (cpu, wall) in found.items():
                system = f"plain beside {name}" if form == "plain" else form
                keep(system, "processor_seconds", cpu, "s")
                keep(system, "seconds", wall, "s")
                keep(system, "relative_processor_seconds", cpu / found["plain"][0], "1")
            opened.release()
    report.finish("lora", records, extra={"threads": options.threads, "runs": options.runs, "rank": options.rank})
    return 0


if __name__ == "__main__":
    sys.exit(main())
