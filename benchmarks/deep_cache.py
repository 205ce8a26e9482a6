"""What keeping deep features (`deep_cache`) gives and costs: `python -m benchmarks.deep_cache [--engine FOLDER]`.

On the miniature, or on the engine in FOLDER: pictures of the first prompts of the contact sheet against those of the
same call without it (`psnr_db`), rows of the U-Nets that ran whole and outermost level alone, and the processor time of
all but the decoder, which other work on the machine does not lengthen by waiting. Beside them, calls without it that
take fewer steps. Then, by torch's own counter, the share of multiplications that the outermost level has, of the
full-size networks too (`benchmarks.deep_cache_wide` measures SDXL's).
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pocketxl.engine import Pipeline, deep_features
from pocketxl.engine.architecture import SizeIds, UNetArchitecture
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.runners.base import call
from pocketxl.export.checkpoint.configuration import JsonFile
from pocketxl.export.checkpoint.unet_configuration import unet_architecture
from pocketxl.export.miniature.sample import CONTACT_SHEET

from .random_checkpoint import CONFIGS
from .report import Record, finish

INTERVALS = (2, 3, 5, 8)
CALLS: Mapping[str, Mapping[str, Any]] = {
    "base, dpmpp_2m karras": {"refiner": False, "sampler": "dpmpp_2m", "schedule": "karras"},
    "base, euler": {"refiner": False, "sampler": "euler"},
    "base, heun karras": {"refiner": False, "sampler": "heun", "schedule": "karras"},
    "base and refiner, dpmpp_2m karras": {"sampler": "dpmpp_2m", "schedule": "karras"},
}
STEPS = 25
FEWER = (13, 9, 5)
SIDES = (512, 1024)


class Pictures:
    """Those of all cases of one engine, and the records of them."""

    def __init__(self, pipe: Pipeline, count: int) -> None:
        self.pipe, self.prompts = pipe, CONTACT_SHEET[:count]
        self.records: list[Record] = []

    def made(self, options: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, float]]:
        """The pictures, and figures of one of them."""
        with counted() as rows:
            started = time.process_time()
            latents = [
                self.pipe(prompt, seed=seed, output_type="latent", **options).images
                for seed, prompt in enumerate(self.prompts)
            ]
            rows["cpu_seconds"] = time.process_time() - started
        pictures = self.pipe.decode(np.concatenate(latents), output_type="np")
        return pictures, {metric: total / len(latents) for metric, total in rows.items()}

    def case(
        self, name: str, options: Mapping[str, Any], reference: tuple[np.ndarray, float] | None = None
    ) -> tuple[np.ndarray, float]:
        """Make the pictures of a case and note its figures; `reference`: those without, and their seconds."""
        pictures, figures = self.made(options)
        seconds = figures["cpu_seconds"]
        if reference is not None:
            figures["psnr_db"] = -10 * float(np.log10(np.square(pictures - reference[0]).mean()))
            figures["relative_cpu_seconds"] = seconds / reference[1]
        self.records += records(name, "pocketxl-int8", figures)
        return pictures, seconds


@contextmanager
def counted() -> Iterator[dict[str, float]]:
    """Rows that U-Nets are asked for, by graph."""
    rows: dict[str, float] = {"rows_whole": 0, "rows_shallow": 0}

    def noted(runner: Any, inputs: Any, held: Any = None) -> Any:
        rows["rows_shallow" if deep_features.FEATURE in inputs else "rows_whole"] += len(inputs["latents"])
        return call(runner, inputs, held)

    with patch.object(deep_features, "call", noted):
        yield rows


UNITS = {"psnr_db": "dB", "cpu_seconds": "s", "rows_whole": "rows", "rows_shallow": "rows"}


def records(case: str, system: str, figures: Mapping[str, float]) -> list[Record]:
    """One of each figure, which whoever waits sees too."""
    sys.stderr.write(f"{case}: {', '.join(f'{metric} {value:.4g}' for metric, value in figures.items())}\n")
    return [
        Record(case=case, system=system, metric=metric, value=value, unit=UNITS.get(metric, "1"))
        for metric, value in figures.items()
    ]


def full_size(kind: str) -> UNetArchitecture:
    """SDXL's own."""
    path = CONFIGS / kind / "unet" / "config.json"
    file = JsonFile(data=json.loads(path.read_text(encoding="utf-8")), path=path)
    return unet_architecture(file, SizeIds.SIZE_CROP_SCORE if kind == "refiner" else SizeIds.SIZE_CROP_TARGET)


def multiplications(architecture: UNetArchitecture, side: int) -> dict[str, float]:
    """Of a call of one row, and which share of them is the outermost level's; no numbers are computed."""
    lengths = {"batch": 1, "tokens": 77, "height": side // 8, "width": side // 8}
    spec = architecture.unet()
    with torch.device("meta"):
        network = UNet(architecture)
        given = {t.name: torch.empty([d if isinstance(d, int) else lengths[d] for d in t.shape]) for t in spec.inputs}
    key_values = [given.pop(name) for name in list(given) if name.startswith("key_values")]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(**given, key_values=key_values)
    last = f"UNet.up_blocks.{len(architecture.block_out_channels) - 1}"
    parts = ("UNet.conv_in", "UNet.conv_out", "UNet.down_blocks.0.resnets", "UNet.down_blocks.0.attentions", last)
    found = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    # A list of modules is not called itself, so that its items stand for it.
    blocks = [name for name in found if name in parts or name.rpartition(".")[0] in (*parts, f"{last}.resnets")]
    blocks += [name for name in found if name.rpartition(".")[0] == f"{last}.attentions"]
    whole = counter.get_total_flops()
    return {"multiply_adds": whole / 2, "share_of_outermost_level": sum(found[name] for name in blocks) / whole}


def main() -> None:
    """Measure and print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deep_cache", description=__doc__)
    parser.add_argument("--engine", type=Path, help="in place of the bundled one")
    parser.add_argument("--pictures", type=int, default=8)
    args = parser.parse_args()
    found = []
    for kind in ("base", "refiner"):
        for side in SIDES:
            found += records(f"sdxl_{kind}_{side}", "pocketxl", multiplications(full_size(kind), side))
    with Pipeline.load(args.engine, threads=1) as pipe:
        for kind, model in pipe.models.denoisers.items():
            counts = multiplications(model.unet, pipe.models.native_size)
            found += records(f"miniature_{kind}_{pipe.models.native_size}", "pocketxl", counts)
        made = Pictures(pipe, args.pictures)
        for name, options in CALLS.items():
            call = {**options, "num_inference_steps": STEPS}
            made.made({**call, "num_inference_steps": 2})  # loads what is needed
            plain = made.case(f"{name}, {STEPS} steps", call)
            for steps in FEWER:
                made.case(f"{name}, {steps} steps", {**call, "num_inference_steps": steps}, plain)
            made.made({**call, "num_inference_steps": 2, "deep_cache": 2})
            for interval in INTERVALS:
                made.case(f"{name}, {STEPS} steps, deep_cache {interval}", {**call, "deep_cache": interval}, plain)
    finish("deep_cache", found + made.records)


if __name__ == "__main__":
    main()
