"""The forms that a value is needed in: halves, or 8 bits with a scale for each row, each picture, or known before.

Whoever multiplies in 8 bits asks for one; norms write it themselves, other values get a call that makes it, once. With
scales that are known before, attention and GEGLU write 8 bits too: no row has to be whole before it is rounded.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum

from ....engine.errors import IncompatibleError
from ....kernels.attention.plan import HEAD_DIM
from ....kernels.weight_only.plan import RUN
from ...quantize.formats import (
    FLOAT16,
    W4_HALVES,
    W4A8_TOKEN,
    W8,
    W8A8_PICTURE,
    W8A8_SIGNED,
    W8A8_TOKEN,
    Format,
    Kind,
)
from .steps import Activate, Attention, Conv, GroupNorm, LayerNorm, Linear, Step, Steps


class Form(StrEnum):
    """How the numbers of a value are written."""

    HALF = "half"
    ROW = "row"
    """int8, and a float32 scale for each row."""
    PICTURE = "picture"
    """int8, and a float32 scale for each picture."""


FormatOf = Callable[[Kind, str], Format]

# From the least precise on: layers that are multiplied at once have the most precise of their formats.
LINEAR: tuple[Format, ...] = (W4A8_TOKEN, W4_HALVES, W8A8_SIGNED, W8A8_TOKEN, W8, FLOAT16)
BY_TOKEN = frozenset({W4A8_TOKEN, W8A8_TOKEN})
"""Formats whose input is 8 bits, with a scale for each token."""
CONV: tuple[Format, ...] = (W4_HALVES, W8A8_PICTURE, W8, FLOAT16)


def linear_format(step: Linear, format_of: FormatOf, static: Collection[str] = ()) -> Format:
    """The format that a linear step is multiplied in; `static`: values whose makers write them so."""
    found = [format_of(Kind.LINEAR, layer) for layer in step.layers]
    if step.residual is not None and step.activation is not None:  # halves alone have both in one
        return FLOAT16
    format = max(found, key=lambda format: _rank(format, LINEAR, step.layers[0]))
    if format == W8A8_SIGNED and step.x not in static:
        return W8A8_TOKEN
    return FLOAT16 if format in (W4A8_TOKEN, W4_HALVES, W8) and step.k % RUN else format


def conv_format(step: Conv, format_of: FormatOf) -> Format:
    """The format that a convolution is multiplied in.

    Two pictures side by side have no kernel for weights alone; few channels are padded as halves only.
    """
    format = format_of(Kind.CONV, step.layer)
    _rank(format, CONV, step.layer)
    if format in (W4_HALVES, W8) and (step.x2 is not None or step.c % RUN):
        return FLOAT16
    return FLOAT16 if (step.c + step.c2) % 16 else format


def static_values(steps: Steps, format_of: FormatOf) -> dict[str, str]:
    """Value → the layer that reads it in 8 bits with scales that are known before: it alone, where the maker can round.

    What attention and GEGLU give is read by one layer; other makers leave it to a call that rounds by rows.
    """
    readers = Counter(value for step in steps.steps for value in _read(step))
    readers.update(value for values in steps.outputs.values() for value in values)
    makers = {step.out: step for step in steps.steps}
    return {
        step.x: step.layers[0]
        for step in steps.steps
        if isinstance(step, Linear)
        and linear_format(step, format_of, (step.x,)) == W8A8_SIGNED
        and readers[step.x] == len(step.layers) == 1
        and _rounds(makers.get(step.x))
    }


def _rounds(maker: Step | None) -> bool:
    if isinstance(maker, Attention):
        return maker.head_dim == HEAD_DIM
    return isinstance(maker, Linear) and maker.activation == "geglu"


def needed(steps: Steps, format_of: FormatOf, static: Collection[str] = ()) -> dict[str, set[Form]]:
    """Value → the forms that it is read in: by steps, and as an output in halves. Not of `static` ones."""
    found: dict[str, set[Form]] = {value: {Form.HALF} for values in steps.outputs.values() for value in values}
    for value, form in _reads(steps.steps, format_of):
        if value not in static:
            found.setdefault(value, set()).add(form)
    return found


def _read(step: Step) -> Iterator[str]:
    """Every value that a step reads, as often as it does."""
    parts = (step.q, step.k, step.v) if isinstance(step, Attention) else (step.x, getattr(step, "x2", None))
    yield from (part if isinstance(part, str) else part[0] for part in parts if part is not None)
    yield from (value for name in ("residual", "time") if (value := getattr(step, name, None)) is not None)


def _reads(steps: tuple[Step, ...], format_of: FormatOf) -> Iterator[tuple[str, Form]]:
    for step in steps:
        if isinstance(step, Linear):
            yield step.x, Form.ROW if linear_format(step, format_of) in BY_TOKEN else Form.HALF
        elif isinstance(step, Conv):
            form = Form.PICTURE if conv_format(step, format_of) == W8A8_PICTURE else Form.HALF
            yield from ((value, form) for value in (step.x, step.x2) if value is not None)
        elif isinstance(step, GroupNorm | LayerNorm):
            yield step.x, Form.HALF
            if isinstance(step, GroupNorm) and step.x2 is not None:
                yield step.x2, Form.HALF
        elif isinstance(step, Activate):
            yield step.x, Form.HALF
        else:
            for part in (step.q, step.k, step.v):
                yield part if isinstance(part, str) else part[0], Form.HALF
        for name in ("residual", "time"):
            if (value := getattr(step, name, None)) is not None:
                yield value, Form.HALF


def _rank(format: Format, order: tuple[Format, ...], layer: str) -> int:
    try:
        return order.index(format)
    except ValueError:
        raise IncompatibleError(
            f"{layer} is to be {format}, which the cuda target has no kernel for: it has "
            f"{', '.join(map(str, order))}; choose another recipe"
        ) from None
