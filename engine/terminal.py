"""What reaches a terminal: text that cannot steer it, on streams that take any text.

Prompts, file names and the text inside foreign pictures and checkpoints may hold escape sequences, which move the
cursor, colour what follows or rename the window, and marks that turn the direction of writing round.
"""

import io
import os
import re
import sys
from pathlib import Path

# C0 but tab and line feed, DEL, C1; marks of direction; separators of lines and paragraphs; annotations; surrogates.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with all that steers a terminal as escapes such as `\x1b`; line breaks stay only with `lines`."""
    shown = _UNSEEN.sub(lambda match: _escape(match[0]), text)
    return shown if lines else shown.replace("\n", r"\n")


def prepare_streams() -> None:
    """Let standard output and error take any text: what their encoding lacks becomes an escape.

    Those that were closed before the process began (`>&-`) become the null device: left as they are, the next file that
    is opened, a picture for example, would be standard output, and a library's message would end up inside it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - it lives with the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode() if character != "\r" else r"\r"
