"""`pocketxl generate`: a prompt in, pictures out, each written as soon as it is done."""

import argparse
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ..check import advice
from ..errors import RequestError
from ..memory.sizes import parse_bytes
from ..picture.files import QUALITY, SUFFIXES
from ..picture.parameters import describe
from ..pipeline import Output, Pipeline
from ..progress import Bars, JsonLines, Progress, Silent
from ..request.limits import integer
from ..request.request import ResolvedRequest
from ..request.syntax import unsupported_syntax
from ..vae import to_uint8
from .base import Command, emit, note, say
from .destination import DEFAULT, Destination
from .like import Like
from .options import add_options, options_of


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", help="what to paint; (word:1.2) gives a word more weight")
    parser.add_argument(
        "-o", "--output",
        help=f"picture ({', '.join(SUFFIXES)}), or a folder for numbered ones (default: {DEFAULT}, or {DEFAULT} with a "
        "number if there is one)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="let a picture replace one of the same name")
    parser.add_argument("--quality", type=int, help=f"of .jpg and .webp, 1 to 100 (default: {QUALITY})")
    parser.add_argument("--engine", help="engine folder (default: the bundled miniature)")
    parser.add_argument(
        "--like", type=Path, metavar="PICTURE",
        help="take all settings from this picture, seed and prompt too; what is given beside it counts instead",
    )  # fmt: skip
    add_options(parser)
    parser.add_argument("--budget", help="memory budget, for example 4GiB (default: none)")
    parser.add_argument("--threads", type=int, help="threads inside one operator (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, warnings and hints")
    parser.add_argument("--json", action="store_true", help="progress and result as one JSON object per line")


def _run(args: argparse.Namespace) -> int:
    images = 1 if args.num_images_per_prompt is None else integer("num_images_per_prompt", args.num_images_per_prompt)
    like = None if args.like is None else Like(args.like)
    if args.prompt is None and like is None:
        raise RequestError("give a prompt, or --like and a picture; see `pocketxl generate --help`")
    destination = Destination.of(args.output, images, overwrite=args.overwrite)
    destination.check_quality(args.quality)
    budget = None if args.budget is None else parse_bytes(args.budget)
    with Pipeline.load(args.engine, memory_budget=budget, threads=args.threads) as pipe:
        defaults, left_out = ({}, []) if like is None else like.keywords(pipe.models)
        options = {**options_of(args, pipe.models, defaults), "output_type": "np"}
        if args.prompt is not None:
            options["prompt"] = args.prompt
        request = pipe.request(**options)
        for warning in _warnings(like, left_out, pipe, request):
            _warn(warning, args)
        destination.try_out(3 * request.height * request.width)
        written = 0
        try:
            for output in pipe.stream(**options, progress=_progress(args)):
                path = destination.write(to_uint8(output.images[0]), _settings(output, pipe), args.quality)
                written += 1
                _tell(path, output, args)
        except KeyboardInterrupt as interrupted:
            raise KeyboardInterrupt(
                f"interrupted; {written} of {images} picture{'s'[: images != 1]} written, nothing half-written was left"
            ) from interrupted
    if not (args.json or args.quiet) and (hint := advice(args.engine)) is not None:
        note(hint)
    return 0


def _warnings(like: Like | None, left_out: list[str], pipe: Pipeline, request: ResolvedRequest) -> Iterator[str]:
    """What a user should know before the work: why a picture may not be what the words or the model picture promise."""
    if like is not None:
        if left_out:
            yield f"left out, because it is unknown here: {', '.join(left_out)}"
        if (other := like.other_model(pipe.name, pipe.digest)) is not None:
            yield f"the picture was made with {other}, and this engine is {pipe.name} ({pipe.digest[:10]})"
    (prompt,) = request.prompts
    texts = (prompt.prompt, prompt.prompt_2, prompt.negative_prompt, prompt.negative_prompt_2)
    found = dict.fromkeys(part for text in texts if text is not None for part in unsupported_syntax(text.given))
    if found:
        yield f"taken as plain words, because there is no such syntax here: {'  '.join(list(found)[:5])}"


def _warn(warning: str, args: argparse.Namespace) -> None:
    if args.json:
        emit("warning", message=warning)
    elif not args.quiet:
        note(warning)


def _progress(args: argparse.Namespace) -> Progress:
    return JsonLines(sys.stdout) if args.json else Silent() if args.quiet else Bars()


def _tell(path: Path, output: Output, args: argparse.Namespace) -> None:
    (seed,) = output.seeds
    if args.json:
        emit("picture", path=str(path), seed=seed, width=output.request.width, height=output.request.height)
    else:
        say(f"{path}  (seed {seed})")


def _settings(output: Output, pipe: Pipeline) -> dict[str, str]:
    version = metadata.version("pocketxl")
    return describe(output.request, 0, model=pipe.name, digest=pipe.digest, version=version)


command = Command(
    help="make pictures from a prompt",
    example="pocketxl generate 'a red apple on a blue background' -o apple.png --seed 7",
    configure=_configure,
    run=_run,
)
