"""Inputs and outputs of a component as values of its program: how the host writes and reads them.

A picture goes up as it is; the program's first call makes the value of it that steps know, in their order and halves.
"""

from collections.abc import Iterator

from ....engine.errors import IncompatibleError
from ....engine.program.program import Call, Edge, Layout, Operand, Option, ValueSpec
from ....engine.program.sizes import Size
from ....engine.specs import ComponentSpec, TensorSpec
from .select import padded
from .steps import Conv, Steps

_LATENTS = {"height": 0, "width": 0}
FLOAT = "float32"
"""Samplers' type: pictures come in it, and the last convolution writes it."""


def inputs_of(spec: ComponentSpec, steps: Steps) -> tuple[Edge, ...]:
    """The edges of the inputs.

    Raises `IncompatibleError` for one that is neither a picture, nor tokens, nor time vectors.
    """
    return tuple(_input(tensor, steps) for tensor in spec.inputs)


def first_calls(spec: ComponentSpec) -> tuple[Call, ...]:
    """The calls that make pixels of the pictures among the inputs."""
    return tuple(_read_pixels(tensor, tensor.shape[1]) for tensor in spec.inputs if len(tensor.shape) == 4)


def outputs_of(spec: ComponentSpec, steps: Steps) -> tuple[Edge, ...]:
    """The edges of the outputs: pictures, as large as the level of the convolution that writes them."""
    makers = {step.out: step for step in steps.steps}
    found = []
    for tensor in spec.outputs:
        value = steps.outputs[tensor.name]
        maker = makers.get(value)
        if len(tensor.shape) != 4 or not isinstance(maker, Conv):
            raise IncompatibleError(f"output {tensor.name} {tensor.shape} is no picture that a convolution writes")
        level = maker.level if maker.upsample_to is None else maker.upsample_to
        shape: tuple[Size, ...] = ("batch", f"height{level}", f"width{level}", maker.n)
        found.append(
            Edge(tensor=tensor.name, layout=Layout.PIXELS, values=(ValueSpec(name=value, shape=shape, dtype=FLOAT),))
        )
    return tuple(found)


def _input(tensor: TensorSpec, steps: Steps) -> Edge:
    match tensor.shape:
        case (_, int(channels), str(height), str(width)) if {height, width} == set(_LATENTS):
            shape: tuple[Size, ...] = ("batch", channels, "height0", "width0")
            picture = ValueSpec(name=_as_given(tensor), shape=shape, dtype=FLOAT)
            return Edge(tensor=tensor.name, layout=Layout.ROWS, values=(picture,))
        case ("batch", "tokens", int(channels)):
            value = ValueSpec(name=tensor.name, shape=("batch", "tokens", channels))
            return Edge(tensor=tensor.name, layout=Layout.ROWS, values=(value,))
        case ("batch", int(channels)):
            values = tuple(_blocks(tensor.name, steps))
            assert sum(int(value.shape[1]) for value in values) == channels, tensor
            return Edge(tensor=tensor.name, layout=Layout.COLUMNS, values=values)
    raise IncompatibleError(
        f"input {tensor.name} {tensor.shape} is no picture, no tokens and no time vectors, which is all that the cuda "
        "target knows; build with --target cpu or rtx"
    )


def _read_pixels(tensor: TensorSpec, channels: Size) -> Call:
    assert isinstance(channels, int), tensor
    shape: dict[str, Option] = {"b": "batch", "h": "height0", "w": "width0", "c": channels, "padded": padded(channels)}
    return Call(
        op="read_pixels",
        layer=tensor.name,
        shape=shape,
        inputs={"x": Operand(name=_as_given(tensor))},
        outputs={"out": tensor.name},
    )


def _as_given(tensor: TensorSpec) -> str:
    return f"{tensor.name}.{FLOAT}"


def _blocks(name: str, steps: Steps) -> Iterator[ValueSpec]:
    """The blocks of columns, in order, which convolutions add."""
    widths = {step.time: step.n for step in steps.steps if isinstance(step, Conv) and step.time is not None}
    for i in range(len(widths)):
        yield ValueSpec(name=f"{name}.{i}", shape=("batch", widths[f"{name}.{i}"]))
