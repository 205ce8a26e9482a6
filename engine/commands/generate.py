"""`pocketxl generate`: a prompt in, pictures out, each written as soon as it is done."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from ..check import advice
from ..errors import RequestError
from ..memory.sizes import parse_bytes
from ..output import Output
from ..picture.files import QUALITY, SUFFIXES
from ..picture.parameters import HASH_DIGITS
from ..pipeline import Pipeline
from ..progress import Bars, JsonLines, Progress, Silent
from ..request.limits import integer
from ..request.request import ResolvedRequest
from ..request.syntax import unsupported_syntax
from .base import Command, emit, note, say
from .control import Controls, add_controls
from .destination import DEFAULT, Destination
from .like import Like
from .options import add_options, add_provider, options_of, words_of
from .pictures_in import add_pictures, hold_like, other_pictures, pictures_of
from .preview import PreviewFile, add_preview
from .styles import add_styles, with_styles
from .upscaler import hold_upscaler, other_upscaler


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
    add_styles(parser)
    add_pictures(parser)
    add_controls(parser)
    add_preview(parser)
    parser.add_argument("--budget", help="memory budget, for example 4GiB (default: none)")
    parser.add_argument("--threads", type=int, help="threads inside one operator (default: as `doctor` says)")
    add_provider(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars, warnings and hints")
    parser.add_argument("--json", action="store_true", help="progress and result as one JSON object per line")


def _run(args: argparse.Namespace) -> int:
    images = 1 if args.num_images_per_prompt is None else integer("num_images_per_prompt", args.num_images_per_prompt)
    like = None if args.like is None else Like(args.like)
    if args.prompt is None and like is None:
        raise RequestError("give a prompt, or --like and a picture; see `pocketxl generate --help`")
    if like is not None:
        hold_like(like, args)
    pictures = pictures_of(args)
    destination = Destination.of(args.output, images, overwrite=args.overwrite)
    destination.check_quality(args.quality)
    budget = None if args.budget is None else parse_bytes(args.budget)
    controls = Controls(args, None if like is None else like.settings)
    with Pipeline.load(
        args.engine, memory_budget=budget, threads=args.threads, provider=args.provider, **controls.folders
    ) as pipe:
        defaults, left_out = (
            ({}, [])
            if like is None
            else like.keywords(
                pipe.models, lora_folder=bool(args.lora_folder), loras=bool(args.lora), upscaler=bool(args.upscaler)
            )
        )
        options = {**options_of(args, pipe.models, defaults), **pictures, "output_type": "np", **controls.options}
        if args.prompt is not None:
            options["prompt"] = words_of(args.prompt, args, pipe.models) if args.literal else args.prompt
        options = with_styles(args, options)
        request = pipe.request(**options)
        hold_upscaler(args, request)
        for warning in _warnings(like, left_out, pipe, request, args):
            _warn(warning, args)
        options |= PreviewFile.of(args, pipe)
        destination.try_out(3 * request.made[0] * request.made[1])
        written = 0
        try:
            for output in pipe.stream(**options, progress=_progress(args, images)):
                path = destination.write(output.pixels(), output.settings(), args.quality)
                written += 1
                _tell(path, output, args)
        except KeyboardInterrupt as interrupted:
            raise KeyboardInterrupt(
                f"interrupted; {written} of {images} pictures written, nothing half-written was left"
            ) from interrupted
    if not (args.json or args.quiet) and (hint := advice(args.engine, provider=args.provider)) is not None:
        note(hint)
    return 0


def _warnings(
    like: Like | None, left_out: list[str], pipe: Pipeline, request: ResolvedRequest, args: argparse.Namespace
) -> Iterator[str]:
    """What a user should know before the work: why a picture may not be what the words or the model picture promise."""
    if like is not None:
        if left_out:
            yield f"left out, because it is unknown here: {', '.join(left_out)}"
        if (steered := like.controls()) and not request.controls:
            yield f"the picture was steered, by a picture that is not inside; give --control for {', '.join(steered)}"
        if (steered := like.adapters()) and not request.adapters:
            yield f"the picture was steered, by one that is not inside; give --t2i-adapter for {', '.join(steered)}"
        if (by := like.ip_adapter) is not None and request.image_prompt is None:
            yield f"the picture had a picture as a prompt, which is not inside; give --ip-adapter for {by}"
        if (other := like.other_model(pipe.name, pipe.digest)) is not None:
            yield f"the picture was made with {other}, and this engine is {pipe.name} ({pipe.digest[:HASH_DIGITS]})"
        if missing := like.other_embeddings(request.prompts[0]):
            yield (
                f"the picture was made with the embeddings {', '.join(missing[:5])}, which are not here as they were; "
                "--embedding-folder names the folder that they lie in"
            )
        if others := like.other_loras(request.loras):
            yield f"other files than the picture was made with: {', '.join(others)}"
        yield from other_pictures(like, request)
        yield from other_upscaler(like, request)
    yield from (note for use in request.loras for note in use.notes)
    if args.literal:
        return
    texts = [text for p in request.prompts for text in (p.prompt, p.prompt_2, p.negative_prompt, p.negative_prompt_2)]
    found = dict.fromkeys(
        part
        for text in texts
        if text is not None
        for part in unsupported_syntax(text.given, embeddings=args.embedding_folder is not None)
        if not (args.lora_folder and part.startswith(("<lora:", "<lyco:")))
    )
    if found:
        yield f"taken as plain words, because there is no such syntax here: {'  '.join(list(found)[:5])}"


def _warn(warning: str, args: argparse.Namespace) -> None:
    if args.json:
        emit("warning", message=warning)
    elif not args.quiet:
        note(warning)


def _progress(args: argparse.Namespace, pictures: int) -> Progress:
    if args.json:
        return JsonLines(sys.stdout, pictures=pictures)
    return Silent() if args.quiet else Bars(pictures=pictures)


def _tell(path: Path, output: Output, args: argparse.Namespace) -> None:
    (seed,) = output.seeds
    if args.json:
        height, width = output.request.made
        emit("picture", path=str(path), seed=seed, width=width, height=height)
    else:
        say(f"{path}  (seed {seed})")


command = Command(
    help="make pictures from a prompt",
    example="pocketxl generate 'a red apple on a blue background' -o apple.png --seed 7",
    configure=_configure,
    run=_run,
)
