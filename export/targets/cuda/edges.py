"""Inputs and outputs of a component as values of its program: how the host writes and reads them.

A picture goes up as it is; the program's first call makes the value of it that steps know, in their order and halves.
"""

from collections.abc import Iterator, Sequence

from ....engine.errors import IncompatibleError
from ....engine.program.program import Call, Edge, Layout, Operand, Option, ValueSpec, Words
from ....engine.program.sizes import Size
from ....engine.specs import ComponentSpec, TensorSpec
from .select import padded
from .steps import Conv, LayerNorm, Linear, Place, Step, Steps

_LATENTS = {"height": 0, "width": 0}
FLOAT = "float32"
"""Samplers' type: pictures come in it, and the last convolution writes it."""
HALF = "float16"
_CONDITIONS = (Place(rows="evaluations"), Place(rows="steps"))


def inputs_of(spec: ComponentSpec, steps: Steps) -> tuple[Edge, ...]:
    """The edges of the inputs.

    Raises `IncompatibleError` for one that is neither a picture, nor tokens, nor their ids, nor time vectors.
    """
    return tuple(_input(tensor, steps) for tensor in spec.inputs)


def first_calls(spec: ComponentSpec) -> tuple[Call, ...]:
    """The calls that make pixels of the pictures among the inputs."""
    return tuple(_read_pixels(tensor, tensor.shape[1]) for tensor in spec.inputs if len(tensor.shape) == 4)


def outputs_of(spec: ComponentSpec, steps: Steps) -> tuple[Edge, ...]:
    """The edges of the outputs: pictures, as large as the level of the convolution that writes them, and rows of texts.

    Raises `IncompatibleError` for others.
    """
    makers = {step.out: step for step in steps.steps}
    return tuple(
        _output(tensor, [makers[value] for value in steps.outputs[tensor.name]], steps) for tensor in spec.outputs
    )


def _output(tensor: TensorSpec, makers: Sequence[Step], steps: Steps) -> Edge:
    if len(tensor.shape) == 3 and all(isinstance(maker, Linear) and maker.place in _CONDITIONS for maker in makers):
        pictures = tensor.shape[1]
        values = tuple(
            ValueSpec(name=maker.out, shape=("steps", pictures, maker.n))
            for maker in makers
            if isinstance(maker, Linear)
        )
        return Edge(tensor=tensor.name, layout=Layout.COLUMNS, values=values)
    (maker,) = makers
    match maker:
        case Conv() if len(tensor.shape) == 4:
            level = maker.level if maker.upsample_to is None else maker.upsample_to
            shape: tuple[Size, ...] = ("batch", f"height{level}", f"width{level}", maker.n)
            layout, dtype = Layout.PIXELS, FLOAT
        case Linear(place=Place(rows="texts")) | LayerNorm(place=Place(rows="texts")):
            layout, dtype = Layout.END_OF_TEXT if tensor.name in steps.ends else Layout.ROWS, HALF
            shape = ("batch", "tokens", maker.n if isinstance(maker, Linear) else maker.c)
        case _:
            raise IncompatibleError(
                f"output {tensor.name} {tensor.shape} is no picture that a convolution writes, and no rows of texts, "
                "which is all that the cuda target knows; build with --target cpu or rtx"
            )
    return Edge(tensor=tensor.name, layout=layout, values=(ValueSpec(name=maker.out, shape=shape, dtype=dtype),))


def _input(tensor: TensorSpec, steps: Steps) -> Edge:
    if (vector := steps.vectors.get(tensor.name)) is not None:
        value = ValueSpec(name=vector.value, shape=(vector.place.rows, vector.c))
        return Edge(tensor=tensor.name, layout=Layout.VECTORS, values=(value,), vectors=vector.vectors)
    match tensor.shape:
        case ("batch", int(tokens)) if steps.words is not None and tensor.name == steps.words.tensor:
            words, places, width = steps.words.shape
            assert places == tokens, tensor
            value = ValueSpec(name=tensor.name, shape=("batch", "tokens", width))
            table = Words(words=words, tokens=places, width=width, end=steps.words.end)
            return Edge(tensor=tensor.name, layout=Layout.WORDS, values=(value,), words=table)
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
        f"input {tensor.name} {tensor.shape} is no picture, no text and no time vectors, which is all that the cuda "
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
