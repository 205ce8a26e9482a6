"""What a pixel costs as pictures grow: `python -m benchmarks.pixels --base FOLDER --work WORK [--sizes 512 … 2048]`.

A forward of the base's U-Net and a decode of the VAE, at each size, by one system of `benchmarks.cpu`. Linear layers
and convolutions do the same for every pixel; attention does more for each, the more there are. So the seconds should be
`a · (operations of attention) + b · (all others)` with the same a and b at every size. Both are fitted, and `over_fit`
says how far a size is from that: what grows for any other reason (memory that is copied, caches that overflow) shows
there. Operations are counted by torch on diffusers' own modules, of which nothing is computed. Without `--base` the
bundled miniature at an eighth of the sides, whose seconds are mostly overhead.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pocketxl.engine.runners.cores import available_cores

from .cpu.cases import Case
from .cpu.inputs import Feeds, feeds_of
from .cpu.job import MINIATURE, Model, Network
from .cpu.systems import SYSTEMS
from .journal import Journal
from .report import finish

SIZES: Final = (512, 768, 1024, 1536, 2048)
MINIATURE_SCALE: Final = 8
NETWORKS: Final[Mapping[str, tuple[Network, str]]] = {
    "unet": ("base", "UNet2DConditionModel"),
    "vae": ("vae", "AutoencoderKL"),
}


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of one call: multiplications and additions in attention's two products, and in everything else."""

    attention: float
    others: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One size: the picture's pixels, what is computed for it, and its seconds."""

    pixels: int
    operations: Operations
    seconds: float


def main() -> None:
    """Measure and print; the last line is JSON."""
    names = [system.name for system in SYSTEMS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pixels", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--base", type=Path, help="a diffusers folder (default: the miniature)")
    parser.add_argument("--work", type=Path, help="folder that keeps the engine for the next run")
    parser.add_argument("--system", choices=names, default="pocketxl-openvino-int8")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="sides of square pictures")
    parser.add_argument(
        "--rounds", type=int, default=3, help="timed calls after one that is not timed; the median counts"
    )
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--out", type=Path, help="file that holds the records at any time")
    options = parser.parse_args()
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}, at least 1 is needed")
    scale = 1 if options.base else MINIATURE_SCALE
    wrong = [size for size in options.sizes if size < 8 * scale or size % (8 * scale)]
    if wrong or len(set(options.sizes)) < 2:
        parser.error(f"--sizes are {options.sizes}: at least two, multiples of {8 * scale}, are needed")
    if options.base and not (options.base / "unet" / "config.json").is_file():
        parser.error(f"--base is {options.base}, which is no diffusers folder: it has no unet/config.json")
    with tempfile.TemporaryDirectory() as scratch:
        model = Model(
            base=options.base or MINIATURE / "base", refiner=None, work=options.work or Path(scratch),
            threads=options.threads, scale=scale,
        )  # fmt: skip
        journal = Journal("pixels", options.out, {"threads": options.threads, "scale": scale})
        system = {system.name: system for system in SYSTEMS}[options.system]
        if reason := system.reason():
            parser.error(f"{system.name} cannot be measured: {reason}")
        for name in options.networks:
            opened = system.open(model)
            opened.prepare(NETWORKS[name][0])
            found = {}
            for size in options.sizes:
                found[size] = measure(opened, model, name, size // scale, options.rounds)
                tell(journal, f"{name}_{size}", system.name, found[size])
            tell_fit(journal, name, system.name, found)
    finish("pixels", journal.records, extra=journal.extra)


def measure(opened: Any, model: Model, name: str, side: int, rounds: int) -> Measured:
    """The median of `rounds` calls on a picture of that side in pixels, after one that is not timed."""
    case = Case(name=f"{name}_{side}", kind="vae" if name == "vae" else "unet", size=side)
    feeds = feeds_of(model, case)
    call = opened.load(NETWORKS[name][0], feeds)
    call(feeds)
    seconds = statistics.median(_seconds(call, feeds) for _ in range(rounds))
    return Measured(pixels=side * side, operations=operations(model, name, feeds), seconds=seconds)


def _seconds(call: Callable[[Feeds], np.ndarray], feeds: Feeds) -> float:
    begin = time.perf_counter()
    call(feeds)
    return time.perf_counter() - begin


def operations(model: Model, name: str, feeds: Feeds) -> Operations:
    """Counted by torch, on the meta device, where attention alone multiplies batches of matrices (`bmm`)."""
    import diffusers
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network, kind = NETWORKS[name]
    config = json.loads((model.folder(network) / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        module = getattr(diffusers, kind).from_config(config).eval()
        given = {key: torch.empty(value.shape) for key, value in feeds.items()}
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            if name == "vae":
                module.decode(given["latents"])
            else:
                conditions = {key: given[key] for key in ("text_embeds", "time_ids")}
                module(given["sample"], given["timestep"], given["encoder_hidden_states"], added_cond_kwargs=conditions)
    counts = counter.get_flop_counts()["Global"]
    attention = sum(count for key, count in counts.items() if str(key) == "aten.bmm")
    return Operations(attention=attention, others=sum(counts.values()) - attention)


def fit(found: Mapping[int, Measured]) -> tuple[float, float]:
    """Seconds of an operation in attention and elsewhere: least squares of the relative errors, neither below zero."""
    from scipy.optimize import nnls

    rows = [[m.operations.attention / m.seconds, m.operations.others / m.seconds] for m in found.values()]
    largest = np.max(rows, axis=0)
    solution, _ = nnls(np.asarray(rows) / largest, np.ones(len(rows)))
    attention, others = solution / largest
    return float(attention), float(others)


def tell(journal: Journal, case: str, system: str, measured: Measured) -> None:
    """The records of one size."""
    journal.add(case, system, "seconds", measured.seconds, "s")
    journal.add(case, system, "microseconds_per_pixel", measured.seconds / measured.pixels * 1e6, "us")
    journal.add(case, system, "attention_operations", measured.operations.attention, "1")
    journal.add(case, system, "other_operations", measured.operations.others, "1")


def tell_fit(journal: Journal, name: str, system: str, found: Mapping[int, Measured]) -> None:
    """The rates that a network's sizes come to, and how far each is from them."""
    attention, others = fit(found)
    for size, measured in found.items():
        expected = attention * measured.operations.attention + others * measured.operations.others
        journal.add(f"{name}_{size}", system, "over_fit", measured.seconds / expected - 1, "1")
    for kind, value in (("attention", attention), ("other", others)):
        if value:
            journal.add(name, system, f"{kind}_operations_per_second", 1 / value, "1/s")


if __name__ == "__main__":
    main()
