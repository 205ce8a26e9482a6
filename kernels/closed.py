"""Every kernel that a call can ask for, whatever the sizes and the card: what an engine for any picture ships.

What is compiled depends on sizes through the tables' limits of rows, through keys that fill no block, and through sums
that are shared out or not. Each is constant between edges that the tables name, so a size from each interval between
them, planned, gives all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, Final

from .architecture import Architecture
from .attention.plan import SHORT, fastest_form
from .configs import every, table, trying
from .launch import Variant, cdiv
from .sdxl import Value, plan_function

ROW_OPS: Final = frozenset({
    "linear_w8a8", "geglu_linear_w8a8", "linear_w4a8", "geglu_linear_w4a8", "linear_w4", "linear_w8", "linear_f16",
    "layer_norm", "layer_norm_quantize", "add_layer_norm_quantize", "quantize_per_token", "geglu_quantize", "geglu",
    "activate",
})  # fmt: skip
PICTURE_OPS: Final = frozenset({"group_norm_silu", "group_norm_silu_quantize", "quantize_per_image", "read_pixels"})
CONV_OPS: Final = frozenset({"conv_w8a8", "conv_f16", "conv_w4", "conv_w8"})
SHARED_OPS: Final = CONV_OPS | {"linear_w8a8"}
ATTENTION_OPS: Final = frozenset({"attention", "attention_int8"})

Fixed = Mapping[str, Value | tuple[int, ...] | tuple[str, ...] | None]
"""Sizes may be names: `rows1`, or `("height0", "width0")`."""
Sizes = dict[str, Value]

_MANY: Final = 2**20


def all_variants(op: str, shape: Fixed, arch: Architecture) -> tuple[Variant, ...]:
    """What must be compiled so that a call of an op can run at any size, on any card of an architecture.

    `shape`: the keyword arguments of its `plan_<op>`, without `arch`. Those that are sizes (m, b, h, w, batch; n of
    attention; width and height of upsample_to) may have any value, or a name, or be left out: they are not looked at,
    but `upsample_to` says whether a picture is enlarged.

    Raises `KernelError`: there is no such op, or it can never take the shape.
    """
    hashable = tuple(
        sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in shape.items())
    )
    return _all_variants(op, hashable, arch)


@cache
def _all_variants(op: str, shape: tuple[tuple[str, Any], ...], arch: Architecture) -> tuple[Variant, ...]:
    given = dict(shape)
    if op == "self_attention":
        op, more = fastest_form(arch, given.get("dtype", "float16"))
        given |= more
    plan = plan_function(op)
    limits = [row.rows for row in table(op) if row.sm == arch.sm and row.rows is not None]
    found: dict[Variant, None] = {}
    # A sum that can be shared out is, where there are more multiprocessors than work, and never where there is but one.
    every_card = (arch, replace(arch, multiprocessors=1), replace(arch, multiprocessors=_MANY))
    cards = every_card if op in SHARED_OPS else every_card[:1]
    for card, sizes in product(cards, list(_sizes(op, given, limits))):
        found.update(dict.fromkeys(plan(**{**given, **sizes}, arch=card).variants))
    if any("tile" in row.shape for row in table(op) if row.sm == arch.sm):
        # Which alternative serves changes with sizes too often to list: each, whether or not some size asks for it.
        with trying(op) as trial:
            plan(**{**given, **next(_sizes(op, given, limits))}, arch=arch)
        for row in every(op, arch.sm, **trial.asked[0][1]):
            for card, sizes in product(cards, list(_sizes(op, given, limits))):
                with trying(op, row.config):
                    found.update(dict.fromkeys(plan(**{**given, **sizes}, arch=card).variants))
    return tuple(found)


def _sizes(op: str, given: Fixed, limits: Sequence[int]) -> Iterator[Sizes]:
    """Sizes that between them lie in every interval of a table's `limits` in which nothing changes."""
    if op in ROW_OPS:
        for m in _one_of_each(limits):
            yield {"m": m}
    elif op in PICTURE_OPS:
        a_pixel = _whole(given, "c") if op == "quantize_per_image" else 1
        for pixels in _one_of_each(limit // a_pixel for limit in limits):
            yield {"b": 1, "h": pixels, "w": 1}
    elif op in CONV_OPS:
        yield from _pictures(op, given, limits)
    elif op in ATTENTION_OPS:
        yield from _tokens(given, [limit // _whole(given, "heads") for limit in limits])
    elif op == "attention_wide":  # neither keys nor rounds choose a binary
        both = {row.rows for name in (op, "attention_wide_mix") for row in table(name) if row.rows is not None}
        for m in _one_of_each(both):
            yield {"batch": 1, "m": m, "n": 1}
    else:
        plan_function(op)  # names those there are
        raise AssertionError(f"{op} has no sizes here")


def _one_of_each(limits: Iterable[int]) -> list[int]:
    """The least number of each interval that the limits, its last numbers, part the numbers from 1 on into."""
    return sorted({1, *(limit + 1 for limit in limits)})


def _pictures(op: str, given: Fixed, limits: Sequence[int]) -> Iterator[Sizes]:
    """One picture a pixel wide, in heights that reach every table row."""
    pictures = 2 if op == "conv_f16" else 1  # its tables are asked for a pair
    for pixels in sorted({cdiv(count, pictures) for count in _one_of_each(limits)}):
        if given.get("upsample_to"):
            yield {"b": 1, "h": cdiv(pixels, 2), "w": 1, "upsample_to": (pixels, 1)}
        else:
            yield {"b": 1, "h": pixels * _whole(given, "stride", 1), "w": 1}


def _tokens(given: Fixed, limits: Sequence[int]) -> Iterator[Sizes]:
    """Queries up to every limit; few keys and many, that fill blocks of 64, of 32, or neither."""
    if given.get("causal"):
        for n in _of_each_remainder([SHORT, *limits]):
            yield {"batch": 1, "m": n, "n": n}
    else:
        for m in _one_of_each(limits):
            for n in _of_each_remainder([SHORT]):
                yield {"batch": 1, "m": m, "n": n}


def _of_each_remainder(limits: Sequence[int]) -> list[int]:
    """For each interval the least multiple of 64 in it, of 32 only, and of neither."""
    firsts = _one_of_each(limits)
    found = set()
    for first, after in zip(firsts, [*firsts[1:], 2**31], strict=True):
        starts = (cdiv(first, 64) * 64, cdiv(first - 32, 64) * 64 + 32, first if first % 32 else first + 1)
        found |= {start for start in starts if first <= start < after}
    return sorted(found)


def _whole(given: Fixed, name: str, default: int = 0) -> int:
    value = given.get(name, default)
    assert isinstance(value, int), f"{name} is {value!r}"
    return value
