"""A program at the sizes of one picture: the launch plan of every call, and how many bytes every value has.

Here the program meets the kernels of this release: a call must have the operands that its plan has, of the same types,
and no operand may reach beyond the memory of what it names.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ...kernels.architecture import Architecture
from ...kernels.errors import KernelError
from ...kernels.launch import DTYPES, Buffer, LaunchPlan
from ...kernels.sdxl import plan_function
from ..errors import IncompatibleError, IntegrityError, RequestError
from .checks import weight_bytes
from .program import Call, Option, Program, ValueSpec
from .sizes import Sizes, is_symbol


@dataclass(frozen=True, kw_only=True)
class PlannedCall:
    """A call and what it launches; equal calls share a plan."""

    call: Call
    plan: LaunchPlan


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A program at one picture's sizes on one architecture. `values`: bytes of each, the inputs' among them."""

    calls: tuple[PlannedCall, ...]
    inputs: Mapping[str, int]
    values: Mapping[str, int]


def resolve(program: Program, sizes: Sizes, arch: Architecture) -> Resolved:
    """Make the plan of every call.

    Raises `RequestError` for sizes that a kernel does not take, `IncompatibleError` where a call is not one of this
    release's, `IntegrityError` where an operand is not what the plan reads.
    """
    inputs = {
        value.name: prod(shape_of(value, sizes)) * DTYPES[value.dtype][0]
        for edge in program.inputs
        for value in edge.values
    }
    types = {value.name: value.dtype for edge in program.inputs for value in edge.values}
    types |= {name: weight.dtype for name, weight in program.weights.items()}
    room = {**inputs, **{name: weight_bytes(weight) for name, weight in program.weights.items()}}
    values = dict(inputs)
    plans: dict[tuple[object, ...], LaunchPlan] = {}
    calls = []
    for call in program.calls:
        key = (call.op, *sorted(call.shape.items()))
        if (plan := plans.get(key)) is None:
            plan = plans[key] = plan_of(call, sizes, arch)
        _hold(call, plan, types, room)
        for name, made in call.outputs.items():
            types[made] = plan.outputs[name].dtype
            room[made] = values[made] = plan.outputs[name].size_bytes
        calls.append(PlannedCall(call=call, plan=plan))
    for edge in program.outputs:
        for value in edge.values:
            size = prod(shape_of(value, sizes)) * DTYPES[value.dtype][0]
            if types[value.name] != value.dtype or size != values[value.name]:
                raise IntegrityError(
                    f"the output {edge.tensor} is {values[value.name]} bytes of {types[value.name]}, the program "
                    f"says {size} of {value.dtype}; build the engine again"
                )
    return Resolved(calls=tuple(calls), inputs=inputs, values=values)


def plan_of(call: Call, sizes: Sizes, arch: Architecture) -> LaunchPlan:
    """What one call launches at these sizes.

    Raises `RequestError` for sizes that its kernel does not take, `IncompatibleError` where this release has no such
    call.
    """
    try:
        shape = {name: _resolved(option, sizes) for name, option in call.shape.items()}
        made: LaunchPlan = plan_function(call.op)(**shape, arch=arch)
    except KernelError as error:
        raise RequestError(f"{call.layer}: {error}; choose another size or batch") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise IncompatibleError(
            f"{call.layer}: {call.op} does not take {reprlib.repr(dict(call.shape))} ({error}); install the pocketxl "
            "that built the engine, or build it again"
        ) from error
    return made


def shape_of(value: ValueSpec, sizes: Sizes) -> tuple[int, ...]:
    """A value's shape in numbers."""
    return tuple(sizes[length] for length in value.shape)


def _resolved(option: Option, sizes: Sizes) -> Option:
    if isinstance(option, tuple):
        return tuple(sizes[item] for item in option)
    return sizes[option] if isinstance(option, str) and is_symbol(option) else option


def _hold(call: Call, plan: LaunchPlan, types: Mapping[str, str], room: Mapping[str, int]) -> None:
    """Raise unless a call has the operands of its plan, each of its type and within its memory."""
    if set(call.inputs) != set(plan.inputs) or set(call.outputs) != set(plan.outputs):
        raise IncompatibleError(
            f"{call.layer}: {call.op} reads {sorted(plan.inputs)} and makes {sorted(plan.outputs)}, the program says "
            f"{sorted(call.inputs)} and {sorted(call.outputs)}; install the pocketxl that built the engine, or build "
            "it again"
        )
    for name, operand in call.inputs.items():
        buffer, item = plan.inputs[name], DTYPES[plan.inputs[name].dtype][0]
        if types[operand.name] != buffer.dtype:
            raise IntegrityError(
                f"{call.layer}: {name} of {call.op} is {buffer.dtype}, {operand.name} is {types[operand.name]}; build "
                "the engine again"
            )
        if (operand.offset + _reach(plan, name, buffer)) * item > room[operand.name]:
            raise IntegrityError(
                f"{call.layer}: {name} of {call.op} reaches beyond the {room[operand.name]} bytes of {operand.name}; "
                "build the engine again"
            )


def _reach(plan: LaunchPlan, name: str, buffer: Buffer) -> int:
    """Elements from the first to behind the last that a call reads: rows may lie at a stride in a wider value."""
    stride = next((s for launch in plan.launches if isinstance(s := launch.arguments.get(f"{name}_stride"), int)), None)
    if stride is None:
        return prod(buffer.shape)
    *rows, columns = buffer.shape
    return (prod(rows) - 1) * stride + columns
