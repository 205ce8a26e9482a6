"""Where the values of a program lie in one block of memory, and its size: the working memory of a call.

A program is a straight list, so a value lives from the call that makes it to the last that reads it, and two values may
share memory where their lives do not meet. Values are placed by size, the largest first, each into the smallest gap
that holds it among those that live while it does (Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net
Inference, 2020: greedy by size). Inputs are an exception: they lie side by side at the beginning, for the whole call,
so that one copy brings them all.

What a call adds is not copied: its output takes the place of the `residual` that ends with it. The kernels read an
element of it before they write that element, and no other program of theirs reads it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from .calls import PlannedCall, Resolved
from .checks import ALIGNMENT

RESIDUAL, OUT = "residual", "out"


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bytes `offset` to `offset + size` of the arena, taken from call `first` to call `last`, both included."""

    offset: int
    size: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Arena:
    """`values`: the place of each. `scratch`: for each call, that of each scratch buffer of its plan. `size`: bytes.

    `given`: how many bytes at the beginning are the inputs'.
    """

    size: int
    given: int
    values: Mapping[str, Range]
    scratch: tuple[Mapping[str, Range], ...]

    def ending(self, call: int) -> Iterator[Range]:
        """The ranges that nothing needs any more after a call."""
        taken = {place.offset for place in self.values.values() if place.first == call and place.last > call}
        yield from self.scratch[call].values()
        yield from (r for r in self.values.values() if r.last == call and r.offset not in taken)


@dataclass(kw_only=True)
class _Item:
    """What gets one place: a value with those that are made in its place, or a scratch buffer."""

    size: int
    first: int
    last: int
    offset: int = 0


def lay_out(resolved: Resolved, outputs: Collection[str], *, elsewhere: Collection[str] = ()) -> Arena:
    """Place every value and scratch buffer.

    `outputs`: values that are read after the last call. `elsewhere`: inputs that have memory of their own.
    """
    inputs, given = _side_by_side(resolved, elsewhere)
    lives = _lives(resolved, outputs)
    items: dict[str, _Item] = {}
    scratch: list[dict[str, _Item]] = []
    for i, planned in enumerate(resolved.calls):
        for role, name in planned.call.outputs.items():
            first, last = lives[name]
            under = _replaced(planned, role, i, lives, items)
            if under is not None and under.size == _aligned(resolved.values[name]):
                under.last = last
                items[name] = under
            else:
                items[name] = _item(resolved.values[name], first, last)
        scratch.append({name: _item(b.size_bytes, i, i) for name, b in planned.plan.scratch.items()})
    different = {id(item): item for item in (*items.values(), *(item for call in scratch for item in call.values()))}
    size = _place(list(different.values()), len(resolved.calls))
    return Arena(
        size=given + size,
        given=given,
        values=inputs
        | {
            name: Range(
                offset=given + item.offset, size=resolved.values[name], first=lives[name][0], last=lives[name][1]
            )
            for name, item in items.items()
        },
        scratch=tuple(
            {
                name: Range(offset=given + item.offset, size=planned.plan.scratch[name].size_bytes, first=i, last=i)
                for name, item in call.items()
            }
            for i, (planned, call) in enumerate(zip(resolved.calls, scratch, strict=True))
        ),
    )


def _side_by_side(resolved: Resolved, elsewhere: Collection[str]) -> tuple[dict[str, Range], int]:
    """The places of the inputs, and where they end."""
    found: dict[str, Range] = {}
    end, last = 0, max(len(resolved.calls) - 1, 0)
    for name, size in resolved.inputs.items():
        if name not in elsewhere:
            found[name] = Range(offset=end, size=size, first=0, last=last)
            end += _aligned(size)
    return found, end


def _lives(resolved: Resolved, outputs: Collection[str]) -> dict[str, tuple[int, int]]:
    """First and last call of the life of each value that a call makes."""
    lives: dict[str, tuple[int, int]] = {}
    for i, planned in enumerate(resolved.calls):
        for operand in planned.call.inputs.values():
            if operand.name in lives:
                lives[operand.name] = (lives[operand.name][0], i)
        lives.update(dict.fromkeys(planned.call.outputs.values(), (i, i)))
    end = max(len(resolved.calls) - 1, 0)
    lives.update({name: (lives[name][0], end) for name in outputs})
    return lives


def _replaced(
    planned: PlannedCall, role: str, i: int, lives: Mapping[str, tuple[int, int]], items: Mapping[str, _Item]
) -> _Item | None:
    """The place that an output may take: of a residual that calls made, is whole, ends here, and is read once."""
    operand = planned.call.inputs.get(RESIDUAL)
    if role != OUT or operand is None or operand.name not in items or operand.offset:
        return None
    uses = sum(other.name == operand.name for other in planned.call.inputs.values())
    whole = planned.plan.inputs[RESIDUAL].size_bytes == planned.plan.outputs[OUT].size_bytes
    return items[operand.name] if uses == 1 and whole and lives[operand.name][1] == i else None


def _place(items: list[_Item], calls: int) -> int:
    """Give every item its offset; returns the size of the whole."""
    at: list[dict[int, _Item]] = [{} for _ in range(max(calls, 1))]
    size = 0
    for item in sorted(items, key=lambda item: (-item.size, item.first)):
        meeting: dict[int, _Item] = {}
        for call in range(item.first, item.last + 1):
            meeting.update(at[call])
        item.offset = _gap(sorted((other.offset, other.size) for other in meeting.values()), item.size)
        size = max(size, item.offset + item.size)
        for call in range(item.first, item.last + 1):
            at[call][id(item)] = item
    return size


def _gap(taken: list[tuple[int, int]], size: int) -> int:
    """The offset of the smallest gap that holds `size`; behind all where none does."""
    best, room, end = -1, 0, 0
    for offset, length in taken:
        if offset - end >= size and (best < 0 or offset - end < room):
            best, room = end, offset - end
        end = max(end, offset + length)
    return best if best >= 0 else end


def _item(size: int, first: int, last: int) -> _Item:
    return _Item(size=_aligned(size), first=first, last=last)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
