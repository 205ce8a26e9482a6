"""`pocketxl plan`: what would be in memory when, without loading weights."""

import argparse

from ..folder.manifest import read_manifest
from ..memory.plan import format_table, make_plan
from ..memory.sizes import format_bytes, parse_bytes
from ..miniature import engine_folder
from ..request.request import GenerationRequest
from ..request.validation import validate
from .base import Command, emit, say


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", nargs="?", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--width", type=int, help="picture width in pixels (default: the model's native size)")
    parser.add_argument("--height", type=int, help="picture height in pixels (default: the model's native size)")
    parser.add_argument("--steps", type=int, default=50, help="number of inference steps (default: 50)")
    parser.add_argument("-n", "--images", type=int, default=1, help="pictures made together (default: 1)")
    parser.add_argument("--no-refiner", action="store_true", help="plan for the base alone")
    parser.add_argument("--budget", help="memory budget, for example 4GiB (default: none)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    manifest = read_manifest(engine_folder(args.engine))
    request = validate(
        GenerationRequest(
            prompt="",
            width=args.width,
            height=args.height,
            num_inference_steps=args.steps,
            num_images_per_prompt=args.images,
        ),
        native_size=manifest.models.native_size,
        downscale=manifest.models.vae.downscale,
    )
    plan = make_plan(
        manifest,
        width=request.width,
        height=request.height,
        steps=request.num_inference_steps,
        images=request.images,
        refiner=not args.no_refiner,
        budget=None if args.budget is None else parse_bytes(args.budget),
    )
    if args.json:
        emit("plan", width=plan.width, height=plan.height, phases=plan.table(), keep=sorted(plan.keep),
             peak_bytes=plan.peak_bytes, budget_bytes=plan.budget)  # fmt: skip
        return 0
    say(format_table(plan))
    fits = f" of a budget of {format_bytes(plan.budget)}" if plan.budget else ""
    say(f"predicted peak for {plan.width}x{plan.height}: {format_bytes(plan.peak_bytes)}{fits}")
    released = sorted({name for phase in plan.phases for name in phase.components} - plan.keep)
    say(f"released after use: {', '.join(released) if released else 'nothing, everything stays loaded'}")
    return 0


command = Command(
    help="print what is in memory when, and the predicted peak, without loading weights",
    example="pocketxl plan my-engine --width 1024 --height 1024 --budget 4GiB",
    configure=_configure,
    run=_run,
)
