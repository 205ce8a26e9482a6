"""`pocketxl generate`: a prompt in, pictures out."""

import argparse
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import RequestError, StorageError
from ..memory.sizes import parse_bytes
from ..picture.infotext import write
from ..picture.parameters import describe
from ..picture.png import write_png
from ..pipeline import Output, Pipeline
from ..progress import Bars, JsonLines, Progress, Silent
from ..request.sizes import size_of
from ..sampling.samplers.table import SAMPLERS, SCHEDULES
from ..vae import to_uint8
from .base import Command, emit, say


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="what to paint; (word:1.2) gives a word more weight")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.png"), help="PNG file (default: out.png)")
    parser.add_argument("--engine", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--negative-prompt", help="what to keep away from")
    parser.add_argument("--seed", type=int, help="the same seed makes the same picture (default: a new one each time)")
    parser.add_argument("-n", "--images", type=int, default=1, help="how many pictures; seeds count up from --seed")
    parser.add_argument("--steps", type=int, default=30, help="number of inference steps (default: 30)")
    parser.add_argument("--guidance-scale", type=float, default=5.0, help="how strictly to follow it (default: 5)")
    parser.add_argument("--guidance-rescale", type=float, default=0.0, help="against overexposure, 0 to 1 (default: 0)")
    parser.add_argument("--sampler", default="euler", help=f"{', '.join(SAMPLERS)} (default: euler)")
    parser.add_argument("--schedule", default="default", help=f"{', '.join(SCHEDULES)} (default: default)")
    parser.add_argument("--width", type=int, help="pixels, a multiple of 8 (default: the model's native size)")
    parser.add_argument("--height", type=int, help="pixels, a multiple of 8 (default: the model's native size)")
    parser.add_argument("--aspect", help="width and height by the name of a bucket, such as 3:2 or 16:9")
    parser.add_argument("--no-refiner", action="store_true", help="let the base walk to the end")
    parser.add_argument("--denoising-end", type=float, help="where the refiner takes over, 0 to 1 (default: 0.8)")
    parser.add_argument("--budget", help="memory budget, for example 4GiB (default: none)")
    parser.add_argument("--threads", type=int, help="threads inside one operator (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--json", action="store_true", help="progress and result as one JSON object per line")


def _run(args: argparse.Namespace) -> int:
    progress: Progress = JsonLines(sys.stdout) if args.json else Silent() if args.quiet else Bars()
    paths = _paths(args.output, args.images)
    budget = None if args.budget is None else parse_bytes(args.budget)
    with Pipeline.load(args.engine, memory_budget=budget, threads=args.threads) as pipe:
        output = pipe(args.prompt, progress=progress, **_options(args, pipe))
    for index, path in enumerate(paths):
        write_png(path, to_uint8(output.images[index]), write(_settings(output, index, pipe)))
        if args.json:
            emit("picture", path=str(path), seed=output.seeds[index], width=output.request.width,
                 height=output.request.height)  # fmt: skip
        else:
            say(f"{path}  (seed {output.seeds[index]})")
    return 0


def _options(args: argparse.Namespace, pipe: Pipeline) -> dict[str, Any]:
    width, height = args.width, args.height
    if args.aspect is not None:
        if width is not None or height is not None:
            raise RequestError("--aspect stands for --width and --height; give one or the other")
        width, height = size_of(args.aspect, native=pipe.models.native_size)
    return {
        "negative_prompt": args.negative_prompt,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "guidance_rescale": args.guidance_rescale,
        "sampler": args.sampler,
        "schedule": args.schedule,
        "num_images_per_prompt": args.images,
        "seed": args.seed,
        "width": width,
        "height": height,
        "refiner": not args.no_refiner,
        "denoising_end": args.denoising_end,
        "output_type": "np",
    }


def _paths(output: Path, images: int) -> list[Path]:
    """One path a picture: `out.png`, or `out-1.png`, `out-2.png`, … Refused here, before minutes of work."""
    if output.suffix.lower() != ".png":
        raise RequestError(f"--output {output} must end in .png")
    if not output.parent.is_dir():
        raise StorageError(f"the folder {output.parent} does not exist; create it or choose another one")
    if output.is_dir():
        raise StorageError(f"{output} is a folder; give a file name")
    return [output] if images <= 1 else [output.with_stem(f"{output.stem}-{i + 1}") for i in range(images)]


def _settings(output: Output, index: int, pipe: Pipeline) -> dict[str, str]:
    return describe(output.request, index, model=pipe.name, version=metadata.version("pocketxl"))


command = Command(
    help="make pictures from a prompt",
    example="pocketxl generate 'a red apple on a blue background' -o apple.png --seed 7",
    configure=_configure,
    run=_run,
)
