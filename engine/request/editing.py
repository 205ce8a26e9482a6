r"""`a [red:blue:0.5] apple` → which text holds at which step: AUTOMATIC1111's prompt editing and alternation.

`[from:to:when]`, `[to:when]` and `[from::when]` change the text after step `when`; `[a|b|c]` takes one after another, a
step each; they nest. A number with a point is a share of all steps (1.0 is all of them), one without is a step.

The rules are its grammar's (`modules/prompt_parser.py`, whose examples the tests have): brackets of either kind pair
only if nothing between them is unpaired, `(a:b)` may have one colon, and `[a:b]` without a number is no editing and
leaves what is around it alone. Two differences: a bar outside brackets is text (there, nothing in such a prompt
changes), and a change comes after the step that it names (there, one evaluation later than its documentation says).
"""

import re
from dataclasses import dataclass

from ..errors import RequestError

MOST_CHANGES = 256
"""Editings and alternations in one text: beyond it is no prompt."""
_PART = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]++|\\", re.DOTALL)
_WHEN = re.compile(r"\s*+([+-]?+(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?\d{1,3}+)?)\s*+")
_LONGEST_NUMBER = 32


@dataclass(frozen=True, slots=True)
class _Edited:
    before: "list[_Node]"
    after: "list[_Node]"
    when: str


@dataclass(frozen=True, slots=True)
class _Alternating:
    options: "list[list[_Node]]"


_Node = str | _Edited | _Alternating


@dataclass(slots=True)
class _Open:
    """A bracket that waits for its partner: where it and the separators directly inside it lie in the output."""

    bracket: str
    at: int
    colons: list[int]
    bars: list[int]


def prompt_schedule(text: str, steps: int) -> list[tuple[int, str]]:
    """The text as it is over `steps` steps: each with the step, counted from 1, that it holds to (the last: `steps`).

    Any text is taken, in linear time; raises `RequestError` for more than `MOST_CHANGES` changes in it.
    """
    tree: list[_Node] = _parse(text) if "[" in text else [text]
    ends = {steps}
    for node in _changes(tree):
        if isinstance(node, _Alternating):
            ends.update(range(1, steps + 1))
        elif (end := _step(node.when, steps)) >= 1:
            ends.add(end)
    return [(end, "".join(_at(tree, end, steps))) for end in sorted(ends)]


def _parse(text: str) -> list[_Node]:
    out: list[_Node] = []
    opened: list[_Open] = []
    changes = 0
    for match in _PART.finditer(text):
        part = match[0]
        inside = opened[-1] if opened else None
        if part in ("(", "["):
            opened.append(_Open(part, len(out), [], []))
        elif part == ":" and inside:
            inside.colons.append(len(out))
        elif part == "|" and inside:
            inside.bars.append(len(out))
        elif part in (")", "]"):
            node = _closed(out, opened.pop(), part) if inside else None
            if isinstance(node, _Edited | _Alternating):
                out.append(node)
                if (changes := changes + 1) > MOST_CHANGES:
                    raise RequestError(f"a prompt changes in more than {MOST_CHANGES} places; write fewer brackets")
                continue
            if node is None:
                opened.clear()  # what is open now would hold something unpaired
        out.append(part)
    return out


def _closed(out: list[_Node], bracket: _Open, closing: str) -> _Node | None:
    """What a bracket's content is, taken from the output; the closing one itself for a weight, None for no pair."""
    if bracket.bracket + closing not in ("()", "[]"):
        return None
    if closing == ")":
        return closing if len(bracket.colons) <= 1 and not bracket.bars else None
    if bracket.colons:
        when = _WHEN.fullmatch(_plain(out[bracket.colons[-1] + 1 :]))
        if when is None or len(when[1]) > _LONGEST_NUMBER or len(bracket.colons) > 2:
            return None
        *_, before, after = [], *_split(out, bracket.at, bracket.colons)[:-1]
        del out[bracket.at :]
        return _Edited(before, after, when[1])
    if bracket.bars:
        options = _split(out, bracket.at, bracket.bars)
        del out[bracket.at :]
        return _Alternating(options)
    return closing


def _split(out: list[_Node], start: int, separators: list[int]) -> list[list[_Node]]:
    ends = [*separators, len(out)]
    return [out[begin + 1 : end] for begin, end in zip([start, *separators], ends, strict=True)]


def _plain(nodes: list[_Node]) -> str:
    """The text of nodes, empty where one of them is more than text."""
    return "".join(str(node) for node in nodes) if all(isinstance(node, str) for node in nodes) else ""


def _changes(nodes: list[_Node]) -> list[_Edited | _Alternating]:
    """Every editing and alternation, inner ones too."""
    found: list[_Edited | _Alternating] = []
    for node in nodes:
        if isinstance(node, _Edited):
            found += [node, *_changes(node.before), *_changes(node.after)]
        elif isinstance(node, _Alternating):
            found += [node, *(inner for option in node.options for inner in _changes(option))]
    return found


def _step(when: str, steps: int) -> int:
    return int(max(0.0, min(float(steps), float(when) * (steps if "." in when else 1))))


def _at(nodes: list[_Node], step: int, steps: int) -> list[str]:
    texts: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            texts.append(node)
        elif isinstance(node, _Edited):
            texts += _at(node.before if step <= _step(node.when, steps) else node.after, step, steps)
        else:
            texts += _at(node.options[(step - 1) % len(node.options)], step, steps)
    return texts
