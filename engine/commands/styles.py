"""The flags for styles, of every command that takes a prompt."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..request.prompt import escape
from ..request.styles import find_styles, read_styles


def add_styles(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--styles-file", type=Path, metavar="FILE", help="CSV with name, prompt and negative_prompt, as A1111 has it"
    )
    parser.add_argument(
        "--style", action="append", metavar="NAME",
        help="put a style of --styles-file around the prompts; give it again for several",
    )  # fmt: skip


def with_styles(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """A call's keywords with the styles around `prompt` (a text) and `negative_prompt`.

    Raises `RequestError` for a style without a file, or that is not in it, and what `read_styles` raises.
    """
    if args.styles_file is None:
        if args.style:
            raise RequestError("--style names a row of a styles file; give --styles-file too")
        return options
    styles = read_styles(args.styles_file)
    if not args.style:
        raise RequestError(f"--styles-file has {len(styles)} styles and none is chosen; give --style NAME")
    prompt, negative = options["prompt"], options.get("negative_prompt")
    for style in find_styles(styles, args.style):
        said = (style.prompt, style.negative_prompt)
        if args.literal:  # the texts around it are words too
            said = (escape(said[0]), escape(said[1]))
        prompt, negative = type(style)(name=style.name, prompt=said[0], negative_prompt=said[1]).apply(prompt, negative)
    return {**options, "prompt": prompt, **({} if negative is None else {"negative_prompt": negative})}
