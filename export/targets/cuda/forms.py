"""The forms that a value is needed in: halves, or 8 bits with a scale for each row or each picture.

Whoever multiplies in 8 bits asks for one; norms write it themselves, other values get a call that makes it, once.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum

from ....engine.errors import IncompatibleError
from ....kernels.weight_only.plan import RUN
from ...quantize.formats import FLOAT16, W4_HALVES, W4A8_TOKEN, W8, W8A8_PICTURE, W8A8_TOKEN, Format, Kind
from .steps import Activate, Conv, GroupNorm, LayerNorm, Linear, Step, Steps


class Form(StrEnum):
    """How the numbers of a value are written."""

    HALF = "half"
    ROW = "row"
    """int8, and a float32 scale for each row."""
    PICTURE = "picture"
    """int8, and a float32 scale for each picture."""


FormatOf = Callable[[Kind, str], Format]

# From the least precise on: layers that are multiplied at once have the most precise of their formats.
LINEAR: tuple[Format, ...] = (W4A8_TOKEN, W4_HALVES, W8A8_TOKEN, W8, FLOAT16)
BY_TOKEN = frozenset({W4A8_TOKEN, W8A8_TOKEN})
"""Formats whose input is 8 bits, with a scale for each token."""
CONV: tuple[Format, ...] = (W4_HALVES, W8A8_PICTURE, W8, FLOAT16)


def linear_format(step: Linear, format_of: FormatOf) -> Format:
    """The format that a linear step is multiplied in."""
    found = [format_of(Kind.LINEAR, layer) for layer in step.layers]
    if step.residual is not None and step.activation is not None:  # halves alone have both in one
        return FLOAT16
    format = max(found, key=lambda format: _rank(format, LINEAR, step.layers[0]))
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


def needed(steps: Steps, format_of: FormatOf) -> dict[str, set[Form]]:
    """Value → the forms that it is read in: by steps, and as an output in halves."""
    found: dict[str, set[Form]] = {value: {Form.HALF} for values in steps.outputs.values() for value in values}
    for value, form in _reads(steps.steps, format_of):
        found.setdefault(value, set()).add(form)
    return found


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
