"""`pocketxl generate`: a prompt in, pictures out."""

import argparse
import sys
from importlib import metadata
from pathlib import Path

from ..check import advice
from ..errors import RequestError, StorageError
from ..memory.sizes import parse_bytes
from ..picture.infotext import write
from ..picture.parameters import describe
from ..picture.png import write_png
from ..pipeline import Output, Pipeline
from ..progress import Bars, JsonLines, Progress, Silent
from ..vae import to_uint8
from .base import Command, emit, note, say
from .options import add_options, options_of


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="what to paint; (word:1.2) gives a word more weight")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.png"), help="PNG file (default: out.png)")
    parser.add_argument("--engine", help="engine folder (default: the bundled miniature)")
    add_options(parser)
    parser.add_argument("--budget", help="memory budget, for example 4GiB (default: none)")
    parser.add_argument("--threads", type=int, help="threads inside one operator (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--json", action="store_true", help="progress and result as one JSON object per line")


def _run(args: argparse.Namespace) -> int:
    progress: Progress = JsonLines(sys.stdout) if args.json else Silent() if args.quiet else Bars()
    paths = _paths(args.output, args.num_images_per_prompt or 1)
    budget = None if args.budget is None else parse_bytes(args.budget)
    with Pipeline.load(args.engine, memory_budget=budget, threads=args.threads) as pipe:
        output = pipe(args.prompt, progress=progress, output_type="np", **options_of(args, pipe.models))
    for index, path in enumerate(paths):
        write_png(path, to_uint8(output.images[index]), write(_settings(output, index, pipe)))
        if args.json:
            emit("picture", path=str(path), seed=output.seeds[index], width=output.request.width,
                 height=output.request.height)  # fmt: skip
        else:
            say(f"{path}  (seed {output.seeds[index]})")
    if not (args.json or args.quiet) and (hint := advice(args.engine)) is not None:
        note(hint)
    return 0


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
