"""`pocketxl plan`: what would be in memory when, and on which cards it fits, without loading weights."""

import argparse
from typing import Any

from ..errors import RequestError
from ..memory.cards import (
    ASSUMPTION,
    TAKEN,
    Card,
    OnCard,
    cards_data,
    format_cards,
    on_cards,
    unets_stay_from,
    usual_cards,
)
from ..memory.plan import MemoryPlan
from ..memory.sizes import format_bytes, parse_bytes
from ..memory.streaming import told
from ..memory.table import format_table
from ..miniature import engine_folder
from ..pipeline import Pipeline
from .base import Command, emit, say
from .control import Controls, add_controls
from .options import add_options, add_provider, options_of, words_of
from .pictures_in import add_pictures, pictures_of
from .styles import add_styles, with_styles
from .upscaler import hold_upscaler


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", nargs="?", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--prompt", action="append", help="a prompt; give it again for several (default: a short one)")
    add_options(parser)
    add_styles(parser)
    add_pictures(parser)
    add_controls(parser)
    parser.add_argument("--budget", help="memory budget, for example 4GiB (default: none)")
    parser.add_argument(
        "--device-memory", metavar="SIZE", help="what a card has free, for example 6GiB: plan for it, wherever it is"
    )
    add_provider(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    controls = Controls(args)
    pipe = Pipeline.load(args.engine, provider=args.provider, **controls.folders)
    budget, device = (None if size is None else parse_bytes(size) for size in (args.budget, args.device_memory))
    if budget is not None and device is not None:
        raise RequestError("--device-memory is a budget too, of the card; give one or the other")
    options: dict[str, Any] = {**options_of(args, pipe.models), **pictures_of(args), **controls.options}
    given = [words_of(prompt, args, pipe.models) if args.literal else prompt for prompt in args.prompt or [""]]
    styled = [with_styles(args, {**options, "prompt": prompt}) for prompt in given]
    options, prompts = {**options, **styled[0]}, [one["prompt"] for one in styled]
    del options["prompt"]
    hold_upscaler(args, pipe.request(prompts, **options))
    # `generate` makes the pictures of -n one after another, so one is what it needs memory for.
    one = {**options, "num_images_per_prompt": 1}
    plan = pipe.plan(prompts, budget=budget, **one)
    cards = _cards(pipe, plan, device)
    stay = unets_stay_from(pipe.models, pipe.runners, plan.workload) if cards else None
    if device is not None:
        plan = cards[0].plan
    workload = plan.workload
    if args.json:
        emit("plan", width=workload.width, height=workload.height, images=workload.images,
             prompts=len(prompts), pool=plan.pool, phases=plan.table(), keep=sorted(plan.keep),
             peak_bytes=plan.peak_bytes, budget_bytes=plan.budget or None, streamed=sorted(plan.streamed),
             cards=cards_data(cards), assumed_taken_bytes=TAKEN if cards and device is None else None,
             unets_stay_bytes=stay)  # fmt: skip
        return 0
    say(format_table(plan), lines=True)
    fits = f" of a budget of {format_bytes(plan.budget)}" if plan.budget else ""
    if device is not None and not cards[0].fits:
        fits = f", more than the {format_bytes(device)} that are free"
    say(f"predicted peak for {workload.width}x{workload.height}: {format_bytes(plan.peak_bytes)}{fits}")
    for sentence in told(engine_folder(args.engine), plan) if plan.streamed else ():
        say(sentence)
    released = sorted(set(plan.footprints) - plan.keep)
    say(f"released after use: {', '.join(released) if released else 'nothing, everything stays loaded'}")
    if stay is not None:
        say(f"{_unets(plan)} on the card from picture to picture where it has {format_bytes(stay)} free")
    if cards:
        say(f"\n{format_cards(cards)}", lines=True)
        say(
            "peak: what this program takes on the card; largest picture: or another shape of as many pixels"
            + (f"\n{ASSUMPTION}" if device is None else ""),
            lines=True,
        )
    return 0


def _unets(plan: MemoryPlan) -> str:
    """Whose weights a card should have room for."""
    models = list(plan.workload.evaluations)
    return f"the U-Nets of {' and '.join(models)} stay" if len(models) > 1 else f"the U-Net of {models[0]} stays"


def _cards(pipe: Pipeline, plan: MemoryPlan, device: int | None) -> tuple[OnCard, ...]:
    """What becomes of the call on cards: on one with so much free memory, or else on this machine's and usual ones.

    None for an engine that computes in the machine's own memory.
    """
    if plan.pool == "host":
        if device is not None:
            raise RequestError(
                "--device-memory is of a card, but this engine computes in the machine's own memory; give --budget"
            )
        return ()
    if device is not None:
        cards: tuple[Card, ...] = (Card(name="the card", memory=0, free=device),)
    else:
        here = {one.name: one.room for one in (runner.device for runner in pipe.runners.values()) if one.room}
        cards = (*(Card(name=name, memory=0, free=room) for name, room in here.items() if room), *usual_cards())
    return on_cards(pipe.models, pipe.runners, plan.workload, cards)


command = Command(
    help="print what is in memory when, and the predicted peak, without loading weights",
    example="pocketxl plan my-engine --width 1024 --height 1024 --budget 4GiB",
    configure=_configure,
    run=_run,
)
