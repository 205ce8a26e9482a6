"""What `deep_cache` takes at SDXL's widths: `python -m benchmarks.deep_cache_wide [--side 1024] [--runs 3]`.

A base U-Net in int8 with random weights whose outermost level is SDXL's; below it levels have one transformer block
where SDXL has up to ten. Processor seconds of a call of the plain graph, of the whole one that gives its feature and of
the outermost level, the least of `--runs`; and the resident set with either runner, as it is loaded and behind the
calls, beside what the memory plan says. Linux.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pocketxl.engine.deep_features import FEATURE
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ComponentEntry
from pocketxl.engine.memory.resident import forget_resident_peak, resident_peak
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.cached import cached_for
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner
from pocketxl.engine.runners.ort_session import import_onnxruntime, trim_heap

from .deep_cache import records
from .report import Record, finish
from .unet_operators import inputs, lower, shallow

NAME = "base/unet"


def resident_now() -> int:
    """Bytes of the resident set."""
    trim_heap()
    if not forget_resident_peak():
        raise SystemExit("this benchmark reads the kernel's own mark, so it needs Linux")
    return resident_peak() or 0


def measure(runner: Any, feeds: Mapping[str, Any], constant: Mapping[str, Any], sizes: Sizes, runs: int) -> Any:
    """Seconds by graph and bytes of the resident set; `runner` is released behind it."""
    before, found = resident_now(), {}
    runner.load()
    found["resident_bytes_loaded"] = float(resident_now() - before)
    held = runner.hold(constant)
    feature: dict[str, Any] = {}
    for graph in ("whole", "outermost level"):
        seconds = []
        for _ in range(runs + 1):  # the first grows arenas
            started = time.process_time()
            given = runner({**feeds, **feature}, held)
            seconds.append(time.process_time() - started)
        found[f"processor_seconds_{graph.replace(' ', '_')}"] = min(seconds[1:])
        if FEATURE not in given:
            break
        feature = {FEATURE: given[FEATURE]}
    found["resident_bytes"] = float(resident_now() - before)
    footprint = runner.footprint(sizes)
    found["planned_bytes"] = float(footprint.weights + footprint.retained)
    runner.release()
    return found


def main() -> None:
    """Lower, measure both, print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deep_cache_wide", description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="of the picture, in pixels")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    architecture = replace(shallow(), layers_per_block=2)
    found: list[Record] = []
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / NAME).mkdir(parents=True)
        made = lower(architecture, root / NAME)
        names = [file.name for file in (root / NAME).iterdir()]
        entry = ComponentEntry(
            spec=architecture.unet(), runner="ort", files=tuple(entry_of(root, f"{NAME}/{name}") for name in names),
            weight_bytes=sum((root / NAME / name).stat().st_size for name in names if name.startswith("model.onnx")),
            activation=made.activation, int8_bytes=made.int8_bytes, openings=made.openings,
        )  # fmt: skip
        given = inputs(architecture, args.side)
        constant = {name: array for name, array in given.items() if name.startswith("key_values")}
        feeds = {name: array for name, array in given.items() if name not in constant}
        sizes = Sizes(rows=1, tokens=77, steps=1, pixels=args.side**2)
        plain = OrtRunner(root, NAME, entry, OrtDevice(threads=1))
        import_onnxruntime()
        for system, runner in (("plain", plain), ("deep_cache", cached_for(plain, (), ()))):
            figures = measure(runner, feeds, constant, sizes, args.runs)
            found += records(f"unet_{args.side}_b1_wide", system, figures)
    finish("deep_cache_wide", found)


if __name__ == "__main__":
    main()
