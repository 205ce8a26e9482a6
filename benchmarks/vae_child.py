"""One call of `benchmarks.vae` in a process of its own; prints one JSON object as its last line."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .random_checkpoint import CONFIGS, component_shapes, random_tensor

SEED = 7
CALIBRATED = 24
"""Latents' side from which the ranges of int8 are taken: the variance of random layers does not depend on it."""


def main() -> None:
    """`HALF SYSTEM SIZE WORK [THREADS]`."""
    half, system, size, work = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    threads = int(sys.argv[5]) if len(sys.argv) > 5 else None
    given, least = _given(half, size), 8 if half == "decoder" else 64
    run, planned = (_pocketxl if system.startswith("pocketxl-") else _diffusers)(half, system, work, threads, size)
    run(given[:, :, :least, :least])  # weights are in memory, and packed
    from pocketxl.engine.memory.resident import forget_resident_peak, resident_peak

    forget_resident_peak()
    before, started, busy = resident_peak(), time.perf_counter(), time.process_time()
    made = run(given)
    found = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - busy, **planned}
    after = resident_peak()
    if before is not None and after is not None:
        found["peak_rss_bytes"] = float(after - before)
    kept = work / f"reference-{half}-{size}.npy"
    if system == "diffusers-fp32":
        work.mkdir(parents=True, exist_ok=True)
        np.save(kept, made)
    elif kept.is_file():
        expected = np.load(kept)
        found["relative_error"] = float(np.linalg.norm(made - expected) / np.linalg.norm(expected))
    sys.stdout.write(json.dumps(found) + "\n")


Run = Callable[[np.ndarray], np.ndarray]
"""Latents → picture, or picture → mean and logarithm of the variance."""


def _given(half: str, size: int) -> np.ndarray:
    random = np.random.default_rng(SEED)
    if half == "decoder":
        return random.standard_normal((1, 4, size // 8, size // 8), dtype=np.float32)
    return random.uniform(-1, 1, (1, 3, size, size)).astype(np.float32)


def _weights() -> dict[str, Any]:
    import torch

    shapes = component_shapes("vae", json.loads((CONFIGS / "base/vae/config.json").read_text(encoding="utf-8")))
    return {name: torch.from_numpy(random_tensor(name, shape)) for name, shape in shapes.items()}


def _diffusers(half: str, system: str, _: Path, threads: int | None, __: int) -> tuple[Run, dict[str, float]]:
    import torch
    from diffusers import AutoencoderKL

    if threads is not None:
        torch.set_num_threads(threads)
    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(json.loads((CONFIGS / "base/vae/config.json").read_text(encoding="utf-8")))
    vae.load_state_dict(_weights(), assign=True)
    dtype = torch.bfloat16 if "bf16" in system else torch.float32
    vae = vae.to(dtype).eval()
    if system.endswith("tiles"):
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = 512, 64  # by its own setting 1024 x 1024 is one tile

    def run(given: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            array = torch.from_numpy(given).to(dtype)
            made = vae.decode(array).sample if half == "decoder" else vae.encode(array).latent_dist.parameters
            found: np.ndarray = made.float().numpy()
        return found

    return run, {}


def _pocketxl(half: str, system: str, work: Path, threads: int | None, size: int) -> tuple[Run, dict[str, float]]:
    from pocketxl.engine.architecture import VaeArchitecture
    from pocketxl.engine.folder.files import entry_of
    from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
    from pocketxl.engine.runners import back_end
    from pocketxl.engine.runners.base import Sizes, Streams, call

    from .vae_engine import TARGETS, lower_vae

    decodes = half == "decoder"
    spec = VaeArchitecture().decoder() if decodes else VaeArchitecture().encoder()
    _, target, recipe = system.removesuffix("-bands").split("-", 2)
    folder = work / f"{target}-{recipe}-{half}"
    if not (folder / "bands.json").is_file():
        lower_vae(folder, half, recipe, _weights(), CALIBRATED, TARGETS[target])
    files = tuple(entry_of(folder, file.name) for file in sorted(folder.iterdir()))
    kind = "openvino_bands" if decodes and target == "openvino" else "ort_bands"
    entry = ComponentEntry(
        spec=spec,
        runner=kind,
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={}),
        formats={"w8a8_static_signed": ()} if recipe == "int8" else {},
    )
    make_device, make_runner = back_end(kind)
    runner = make_runner(folder, f"vae_{half}", entry, make_device(threads=threads))
    sizes = Sizes(rows=1, tokens=77, steps=1, pixels=size * size)
    planned = {}
    if system.endswith("-bands") and isinstance(runner, Streams) and (banded := runner.streamed(sizes)) is not None:
        runner.load_streamed()
        planned = {"planned_bytes": float(banded.working)}
    elif kind == "ort_bands":
        planned = {"planned_bytes": float(runner.footprint(sizes).working)}
    (given,) = spec.inputs

    def run(array: np.ndarray) -> np.ndarray:
        made = call(runner, {given.name: array})
        return np.concatenate([made[tensor.name] for tensor in spec.outputs], axis=1)

    return run, planned


if __name__ == "__main__":
    main()
