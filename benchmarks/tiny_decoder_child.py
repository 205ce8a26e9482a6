"""One decode of `benchmarks.tiny_decoder` in a process of its own; prints one JSON object as its last line."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEED = 7
Decode = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """`SYSTEM SIZE WORK THREADS`."""
    import torch

    system, size, work, threads = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    latents = np.random.default_rng(SEED).standard_normal((1, 4, size // 8, size // 8), dtype=np.float32)
    theirs = _theirs()
    expected = _diffusers(theirs)(latents)
    decode = _pocketxl(system, work, threads, theirs) if system.startswith("pocketxl") else _diffusers(theirs)
    decode(latents[:, :, :8, :8])
    from pocketxl.engine.memory.resident import forget_resident_peak, resident_peak

    forget_resident_peak()
    before, started, busy = resident_peak(), time.perf_counter(), time.process_time()
    image = decode(latents)
    found = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - busy}
    after = resident_peak()
    if before is not None and after is not None:
        found["peak_rss_bytes"] = float(after - before)
    found["relative_error"] = float(np.linalg.norm(image - expected) / np.linalg.norm(expected))
    sys.stdout.write(json.dumps(found) + "\n")


def _theirs() -> Any:
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(SEED)
    return AutoencoderTiny().eval()


def _diffusers(theirs: Any) -> Decode:
    import torch

    def decode(latents: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = theirs.decode(torch.from_numpy(latents)).sample.numpy()
        return found

    return decode


def _pocketxl(system: str, work: Path, threads: int, theirs: Any) -> Decode:
    from pocketxl.engine.folder.files import entry_of
    from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
    from pocketxl.engine.models.tiny import TinyDecoder
    from pocketxl.engine.runners.ort import OrtDevice, OrtRunner
    from pocketxl.engine.tiny import TINY_DECODER, TinyDecoderArchitecture
    from pocketxl.export.graph.master import export_master
    from pocketxl.export.quantize.quantization import Quantization
    from pocketxl.export.quantize.recipes import RECIPES
    from pocketxl.export.targets.cpu.target import CpuTarget

    from .vae_engine import Tensors

    architecture, folder = TinyDecoderArchitecture(), work / system
    if not folder.is_dir():
        weights = {name: tensor for name, tensor in theirs.state_dict().items() if name.startswith("decoder.")}
        spec, source = architecture.decoder(), Tensors(weights)
        model = export_master(TINY_DECODER, lambda: TinyDecoder(architecture), spec)
        numbers = Quantization(recipe=RECIPES["fp32"], role=spec.role)
        folder.mkdir(parents=True)
        CpuTarget().lower(TINY_DECODER, spec, model, source, numbers, folder, folder)
    files = tuple(entry_of(folder, file.name) for file in sorted(folder.iterdir()))
    size = sum(file.size for file in files)
    entry = ComponentEntry(
        spec=architecture.decoder(), runner="ort", files=files, weight_bytes=size, activation=ActivationModel(terms={})
    )
    runner = OrtRunner(folder, TINY_DECODER, entry, OrtDevice(threads=threads))
    runner.load()
    return lambda latents: np.asarray(runner({"latents": latents})["image"])


if __name__ == "__main__":
    main()
