"""Where a U-Net's time goes on a processor: `python -m benchmarks.unet_operators [--side 1024] [--threads 2]`.

A U-Net of the base's widths, with one ResNet and one transformer block where SDXL has two and up to ten, goes through
the exporter of target `cpu`, recipe `int8`, with random weights and ranges. It runs with wide convolutions as products
of matrices and in place, in turn (`export/targets/cpu/conv_int8.py`); both must give the same bits. Of a whole call the
processor's time is kept, which other work on the machine does not lengthen by waiting; of each operator and shape the
least time by ONNX Runtime's own profiler, which it does: a long one may have waited in every call. The last line on
standard output is one JSON object.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch

from pocketxl.engine.architecture import SizeIds, UNetArchitecture
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.runners.ort_session import session_options
from pocketxl.engine.specs import Arrays, Role
from pocketxl.export.checkpoint.configuration import JsonFile
from pocketxl.export.checkpoint.unet_configuration import unet_architecture
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization, StaticRange
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.target import Lowered
from pocketxl.export.targets.cpu.target import CpuTarget

from . import report
from .random_checkpoint import CONFIGS, random_tensor

TOKENS, SHOWN = 77, 40
SYSTEMS = {"pocketxl-int8": True, "pocketxl-int8-in-place": False}


class RandomWeights:
    """Every parameter of a module on the meta device, made when it is asked for."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}

    def tensor(self, name: str) -> torch.Tensor:
        """The same numbers on every machine."""
        return torch.from_numpy(random_tensor(name, self.shapes[name]))


def shallow() -> UNetArchitecture:
    """The base U-Net's widths with the least depth that has every layer's shape."""
    path = CONFIGS / "base" / "unet" / "config.json"
    file = JsonFile(data=json.loads(path.read_text(encoding="utf-8")), path=path)
    whole = unet_architecture(file, SizeIds.SIZE_CROP_TARGET)
    return replace(
        whole,
        layers_per_block=1,
        mid_transformer_layers=1,
        transformer_layers=tuple(min(depth, 1) for depth in whole.transformer_layers),
        up_transformer_layers=tuple(min(depth, 1) for depth in whole.up_transformer_layers),
    )


def lower(architecture: UNetArchitecture, out: Path) -> Lowered:
    """The engine's files. Ranges are made up: no time depends on them."""
    with torch.device("meta"):
        module = UNet(architecture)
    ranges = {
        name: StaticRange(
            input_scale=np.full(layer.in_channels, 0.05, np.float32), input_zero=64,
            output_scale=np.full(layer.out_channels, 0.05, np.float32), output_zero=128,
        )
        for name, layer in module.named_modules() if isinstance(layer, torch.nn.Conv2d)
    }  # fmt: skip
    spec = architecture.unet()
    known = Quantization(recipe=RECIPES["int8"], role=Role.UNET, ranges=ranges)
    master = export_master("base/unet", lambda: UNet(architecture), spec)
    return CpuTarget().lower("base/unet", spec, master, RandomWeights(module), known, out, out)


def inputs(architecture: UNetArchitecture, side: int) -> Arrays:
    """Normal numbers for a picture of that side."""
    sizes: Mapping[str, int] = {"batch": 1, "tokens": TOKENS, "height": side // 8, "width": side // 8}
    generator = np.random.default_rng(0)
    return {
        t.name: generator.standard_normal([sizes[d] if isinstance(d, str) else d for d in t.shape], dtype=np.float32)
        for t in architecture.unet().inputs
    }


def operators(profile: Path) -> dict[str, float]:
    """Operator and shape → seconds of all its nodes in a call, each node's least."""
    least: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for event in json.loads(profile.read_text(encoding="utf-8")):
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name, details = event["name"], event["args"]
        shapes = ["x".join(map(str, *shape.values())) for shape in details.get("input_type_shape", [])[:2]]
        kinds[name] = " ".join([details["op_name"], *shapes]).strip()
        least[name] = min(least.get(name, np.inf), event["dur"] / 1e6)
    found: dict[str, float] = defaultdict(float)
    for name, seconds in least.items():
        found[kinds[name]] += seconds
    return dict(sorted(found.items(), key=lambda row: -row[1]))


def main() -> int:
    """Lower, run both ways in turn, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unet_operators", description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="of the picture, in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    architecture, case = shallow(), f"unet_{options.side}_b1_shallow"
    records: list[report.Record] = []

    def keep(system: str, metric: str, value: float, unit: str, part: str = "") -> None:
        records.append(report.Record(case=case + part, system=system, metric=metric, value=value, unit=unit))

    with TemporaryDirectory() as folder:
        lower(architecture, Path(folder))
        model = Path(folder) / "model.onnx"
        feeds = inputs(architecture, options.side)
        sessions: dict[str, Any] = {}
        for system, tiles in SYSTEMS.items():
            settings = session_options(onnxruntime, options.threads, patterns=True, tiles=tiles)
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder) / system)
            sessions[system] = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        taken: dict[str, list[float]] = {system: [] for system in sessions}
        answers = {system: session.run(None, feeds)[0] for system, session in sessions.items()}  # packs, grows arenas
        for _ in range(options.runs):
            for system, session in sessions.items():
                start = time.process_time()
                session.run(None, feeds)
                taken[system].append(time.process_time() - start)
        first = next(iter(answers.values()))
        for system, session in sessions.items():
            keep(system, "processor_seconds", min(taken[system]), "s")
            keep(system, "differing_numbers", float((answers[system] != first).sum()), "1")
            for part, seconds in list(operators(Path(session.end_profiling())).items())[:SHOWN]:
                keep(system, "seconds", seconds, "s", f"/{part}")
                print(f"{system}: {1e3 * seconds:9.1f} ms  {part}", file=sys.stderr)
    report.finish("unet_operators", records, extra={"threads": options.threads, "runs": options.runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
