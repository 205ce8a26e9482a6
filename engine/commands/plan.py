"""`pocketxl plan`: what would be in memory when, without loading weights."""

import argparse
from typing import Any

from ..memory.plan import format_table
from ..memory.sizes import format_bytes, parse_bytes
from ..memory.streaming import price
from ..miniature import engine_folder
from ..pipeline import Pipeline
from ..request.prompt import escape
from .base import Command, emit, say
from .options import add_options, add_provider, options_of


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", nargs="?", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--prompt", action="append", help="a prompt; give it again for several (default: a short one)")
    add_options(parser)
    parser.add_argument("--budget", help="memory budget, for example 4GiB (default: none)")
    add_provider(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    pipe = Pipeline.load(args.engine, provider=args.provider)
    budget = None if args.budget is None else parse_bytes(args.budget)
    options: dict[str, Any] = options_of(args, pipe.models)
    prompts = [escape(prompt) if args.literal else prompt for prompt in args.prompt or [""]]
    pipe.request(prompts, **options)
    # `generate` makes the pictures of -n one after another, so one is what it needs memory for.
    plan = pipe.plan(prompts, budget=budget, **{**options, "num_images_per_prompt": 1})
    workload = plan.workload
    if args.json:
        emit("plan", width=workload.width, height=workload.height, images=workload.images,
             prompts=len(workload.prompt_tokens), pool=plan.pool, phases=plan.table(), keep=sorted(plan.keep),
             peak_bytes=plan.peak_bytes, budget_bytes=plan.budget, streamed=sorted(plan.streamed))  # fmt: skip
        return 0
    say(format_table(plan), lines=True)
    fits = f" of a budget of {format_bytes(plan.budget)}" if plan.budget else ""
    say(f"predicted peak for {workload.width}x{workload.height}: {format_bytes(plan.peak_bytes)}{fits}")
    if plan.streamed:
        say(price(engine_folder(args.engine), plan))
    released = sorted(set(plan.footprints) - plan.keep)
    say(f"released after use: {', '.join(released) if released else 'nothing, everything stays loaded'}")
    return 0


command = Command(
    help="print what is in memory when, and the predicted peak, without loading weights",
    example="pocketxl plan my-engine --width 1024 --height 1024 --budget 4GiB",
    configure=_configure,
    run=_run,
)
