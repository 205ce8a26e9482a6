r"""`a (red:1.2) apple` → `[("a ", 1.0), ("red", 1.2), (" apple", 1.0)]`: the weights that people write into prompts.

The syntax is AUTOMATIC1111's: `(text)` times 1.1, `[text]` divided by 1.1, `(text:1.2)` times 1.2, nesting multiplies,
and `\(` `\)` `\[` `\]` `\\` are the characters themselves. `BREAK` ends a chunk of 75 tokens; `\BREAK` is the word.
Two differences, so that a prompt without weights is left as it is: a bracket without its partner is text (there, an
open one weights all that follows), and a backslash before any other character is text (there, it vanishes).
What changes from step to step is chosen before, in `editing.py`.
"""

import math
import re

from ..errors import RequestError

ROUND = 1.1
SQUARE = 1 / 1.1
WEIGHT_RANGE = (-10.0, 10.0)
"""Hidden states are scaled by the weight; beyond this no checkpoint gives a picture."""

# Possessive quantifiers: no backtracking, so hostile text costs linear time.
_PART = re.compile(r"\\(?:[()\[\]\\]|BREAK\b)|\\|[(\[\])]|:\s*+([+-]?+[\d.]++)\s*+\)|:|[^\\()\[\]:]++")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)\Z")
_SPECIAL = re.compile(r"[()\[\]]|\bBREAK\b|\\(?=[()\[\]\\]|BREAK\b|\Z)")
_BREAK = re.compile(r"\bBREAK\b")
BREAK = ("", 0.0)
"""The run that stands for the word `BREAK`: no other is empty and without weight."""


def escape(text: str) -> str:
    """The text as it must be written so that a prompt takes every bracket, backslash and `BREAK` in it for itself.

    `parse_prompt(escape(text))` is one run of weight 1 with the text as it was.
    """
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def parse_prompt(text: str) -> list[tuple[str, float]]:
    """Split a prompt into runs of equal weight: at least one, empty runs dropped, weights rounded to six decimals.

    `BREAK` is a run of its own, whatever brackets it stands in.
    Takes linear time and accepts any text; raises `RequestError` only for a weight outside `WEIGHT_RANGE`.
    """
    parts = [(match[0], match[1]) for match in _PART.finditer(text)]
    factors = _match_brackets(parts)
    pieces: list[str] = []
    weights: list[float] = []
    # One running product per kind of bracket: `(a [b) c]` is allowed to overlap, as in AUTOMATIC1111.
    products: dict[str, list[float]] = {"(": [1.0], "[": [1.0]}
    for index, (part, _) in enumerate(parts):
        if index not in factors:
            weight = products["("][-1] * products["["][-1]
            for piece in _pieces(part):
                pieces.append(piece)
                weights.append(weight if piece else BREAK[1])
        elif part in products:
            products[part].append(products[part][-1] * factors[index])
        else:
            products["[" if part == "]" else "("].pop()
    return _merge(pieces, weights)


def _pieces(part: str) -> list[str]:
    """Text, unescaped; an empty piece stands for `BREAK`."""
    if part[0] == "\\":
        return [part[1:] or part]
    first, *others = _BREAK.split(part)
    pieces = [first] if first else []
    for other in others:
        pieces += ["", other] if other else [""]
    return pieces


def _match_brackets(parts: list[tuple[str, str | None]]) -> dict[int, float]:
    """The factor of every bracket that has a partner, by part index (both partners)."""
    factors: dict[int, float] = {}
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for index, (part, number) in enumerate(parts):
        if part in opened:
            opened[part].append(index)
        elif part == "]":
            if opened["["]:
                factors[index] = factors[opened["["].pop()] = SQUARE
        elif part.endswith(")") and not part.startswith("\\") and opened["("]:
            factor = ROUND if number is None else _weight(number)
            if factor is not None:
                factors[index] = factors[opened["("].pop()] = factor
    return factors


def _weight(number: str) -> float | None:
    # The length limit keeps float() linear; longer numbers are out of range or absurdly precise, and stay text.
    return float(number) if len(number) <= 64 and _NUMBER.match(number) else None


def _merge(pieces: list[str], weights: list[float]) -> list[tuple[str, float]]:
    low, high = WEIGHT_RANGE
    runs: list[tuple[list[str], float]] = []
    for piece, weight in zip(pieces, weights, strict=True):
        if not piece:
            runs.append(([], BREAK[1]))
            continue
        if not math.isfinite(weight) or not low <= weight <= high:
            shown = piece if len(piece) <= 40 else piece[:39] + "…"
            raise RequestError(
                f"prompt weight {weight:.6g} of {shown!r} is outside {low:g} to {high:g}; "
                r"use fewer brackets, or write \( and \) for brackets that are text"
            )
        rounded = round(weight, 6)
        if runs and runs[-1][1] == rounded and runs[-1][0]:
            runs[-1][0].append(piece)
        else:
            runs.append(([piece], rounded))
    return [("".join(run), weight) for run, weight in runs] or [("", 1.0)]
