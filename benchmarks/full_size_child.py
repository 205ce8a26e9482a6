"""One measurement of `benchmarks.full_size` in a process of its own; prints one JSON object as its last line."""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from .report import peak_rss_bytes

PROMPT = "a castle on a hill at sunset, oil painting"
NEGATIVE = "blurry"
SEED = 7
HAND_OFF = 0.8


class Steps:
    """Seconds between the ends of a model's steps; the first one is taken from when the loop began."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.latents: list[float] = []
        self.last = time.perf_counter()

    def begin(self) -> None:
        """The clock starts."""
        self.last = time.perf_counter()

    def end(self, kind: str) -> None:
        """A step of `kind` is done."""
        now = time.perf_counter()
        self.times.setdefault(kind, []).append(now - self.last)
        self.last = now


def build_engine(work: Path) -> dict[str, Any]:
    """Build the int8 engine of base + refiner."""
    from pocketxl.engine.progress import Bars
    from pocketxl.export.build import build

    started = time.perf_counter()
    # Random weights have no ranges worth finding, so the reference run is small: 256² instead of 512² pixels.
    report = build(work / "base", work / "engine", refiner=work / "refiner", recipe="int8", calibration_size=256,
                   progress=Bars(always=True))  # fmt: skip
    return {
        "seconds": time.perf_counter() - started,
        "peak_rss_bytes": peak_rss_bytes(),
        "cached": report.cached,
        "size_bytes": sum(file.size for file in report.manifest.files),
        "relative_errors": {n: c.quality["relative_error"] for n, c in report.manifest.components.items()},
    }


def run_pocketxl(work: Path, size: int, count: int) -> dict[str, Any]:
    """One picture, components released after use (the least memory)."""
    from pocketxl.engine import Pipeline, ProgressEvent
    from pocketxl.engine.memory.plan import LEAST

    stages: dict[str, float] = {}
    steps = Steps()
    handed_over = round(HAND_OFF * count)

    def progress(event: ProgressEvent) -> None:
        if event.done:
            stages[event.stage] = event.seconds
            sys.stderr.write(f"{event.stage}: {event.seconds:.1f} s\n")

    def on_step(pipe: Pipeline, step: int, timestep: float, arrays: dict[str, Any]) -> None:
        steps.end("base" if step < handed_over else "refiner")
        if step == handed_over - 1:
            steps.latents = arrays["latents"].ravel().tolist()

    started = time.perf_counter()
    pipe = Pipeline.load(work / "engine", memory_budget=LEAST)
    for kind in ("base", "refiner"):
        _time_from_load(pipe.runners[f"{kind}/unet"], steps, stages, f"load_{kind}_unet")
    call: dict[str, Any] = {"negative_prompt": NEGATIVE, "seed": SEED, "num_inference_steps": count, "width": size,
                            "height": size}  # fmt: skip
    output = pipe(PROMPT, **call, progress=progress, callback_on_step_end=on_step)
    output.images[0].save(work / f"pocketxl-{size}.png")
    stages["total"] = time.perf_counter() - started
    return _result(stages, steps) | {"predicted_peak_bytes": pipe.plan(PROMPT, **call).peak_bytes}


def _time_from_load(runner: Any, steps: Steps, stages: dict[str, float], stage: str) -> None:
    """Loading the weights is a stage of its own, and no part of the first step."""
    load = runner.load

    def timed() -> None:
        if not runner.loaded:
            started = time.perf_counter()
            load()
            stages[stage] = time.perf_counter() - started
            steps.begin()

    runner.load = timed


def run_diffusers(work: Path, size: int, count: int) -> dict[str, Any]:
    """The same picture in bfloat16: base, then refiner, one of them in memory at a time."""
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    stages: dict[str, float] = {}
    steps = Steps()

    def on_step(kind: str) -> Any:
        def callback(pipe: Any, step: int, timestep: Any, arrays: dict[str, Any]) -> dict[str, Any]:
            steps.end(kind)
            return arrays

        return callback

    begun = started = time.perf_counter()
    generator = torch.Generator("cpu").manual_seed(SEED)
    # The noise is drawn in float32, as PocketXL draws it; diffusers would round the draw to bfloat16.
    noise = torch.randn((1, 4, size // 8, size // 8), generator=generator).to(torch.bfloat16)
    common = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": count}
    pipe = StableDiffusionXLPipeline.from_pretrained(work / "base", torch_dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    stages["load_base"] = time.perf_counter() - started
    started = time.perf_counter()
    embeds = pipe.encode_prompt(PROMPT, negative_prompt=NEGATIVE)
    stages["encode"] = time.perf_counter() - started
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    steps.begin()
    latents = pipe(**dict(zip(names, embeds, strict=True)), num_inference_steps=count, latents=noise, width=size,
                   height=size, denoising_end=HAND_OFF, output_type="latent",
                   callback_on_step_end=on_step("base")).images  # fmt: skip
    steps.latents = latents.float().ravel().tolist()
    del pipe, embeds
    gc.collect()
    started = time.perf_counter()
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(work / "refiner", torch_dtype=torch.bfloat16)
    refiner.set_progress_bar_config(disable=True)
    stages["load_refiner"] = time.perf_counter() - started
    begin = refiner.prepare_latents

    def prepare(*args: Any, **kwargs: Any) -> Any:
        found = begin(*args, **kwargs)
        steps.begin()  # text encoding is no part of the first step
        return found

    refiner.prepare_latents = prepare
    last = refiner(**common, image=latents, denoising_start=HAND_OFF, output_type="latent",
                   callback_on_step_end=on_step("refiner")).images  # fmt: skip
    started = time.perf_counter()
    vae = refiner.vae.to(torch.float32)  # `force_upcast`, as diffusers itself decodes SDXL
    with torch.inference_mode():
        vae.decode(last.float() / vae.config.scaling_factor)
    stages["decode"] = time.perf_counter() - started
    stages["total"] = time.perf_counter() - begun
    return _result(stages, steps)


def _result(stages: dict[str, float], steps: Steps) -> dict[str, Any]:
    return {
        "stages": stages, "steps": steps.times, "latents": steps.latents, "peak_rss_bytes": peak_rss_bytes()
    }  # fmt: skip


def main() -> None:
    """`python -m benchmarks.full_size_child build|pocketxl|diffusers WORK SIZE STEPS`."""
    system, work, size, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if system == "build":
        result = build_engine(work)
    elif system == "pocketxl":
        result = run_pocketxl(work, size, count)
    else:
        result = run_diffusers(work, size, count)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
