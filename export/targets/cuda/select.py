"""From a network's steps to the calls of our kernels' ops: which op computes a layer in its format, and what it reads.

Each op quantizes for the next where it can: norms write 8 bits, attention and GEGLU where scales are known before; a
value that nothing else wants is never written in halves.
"""

from dataclasses import dataclass, field
from typing import Any

from ....engine.errors import IncompatibleError
from ....engine.program.program import Call, Operand, Option
from ...quantize.formats import (
    A8_SCORES_TOKEN,
    FLOAT16,
    W4_HALVES,
    W4A8_TOKEN,
    W8,
    W8A8_PICTURE,
    W8A8_SIGNED,
    W8A8_TOKEN,
    Kind,
)
from .forms import BY_TOKEN, Form, FormatOf, conv_format, linear_format, needed, static_values
from .steps import Activate, Attention, Conv, GroupNorm, LayerNorm, Linear, Place, Steps
from .stored import Inverse, Parameter, Part, Stored, Weight

ALIGNED = 16
"""Channels come in multiples of so many, so that pixels begin at 16 bytes."""
_HEAD = 64
_LINEAR = {
    W4A8_TOKEN: "linear_w4a8",
    W4_HALVES: "linear_w4",
    W8A8_SIGNED: "linear_w8a8",
    W8A8_TOKEN: "linear_w8a8",
    W8: "linear_w8",
    FLOAT16: "linear_f16",
}
"""Format → the op that multiplies a linear layer in it."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The calls in order, and what has to be stored for them, by the names that the calls know."""

    calls: tuple[Call, ...]
    stored: dict[str, Stored]


def select(steps: Steps, format_of: FormatOf) -> Selected:
    """The calls of a component whose layers have these formats.

    Raises `IncompatibleError` for a format or a layer that there is no kernel for.
    """
    selection = _Selection(steps, format_of)
    for step in steps.steps:
        match step:
            case Linear():
                selection.linear(step)
            case Conv():
                selection.conv(step)
            case GroupNorm():
                selection.group_norm(step)
            case LayerNorm():
                selection.layer_norm(step)
            case Attention():
                selection.attention(step)
            case Activate():
                selection.activate(step)
    return Selected(calls=tuple(selection.calls), stored=selection.stored)


def inverse_of(layer: str) -> str:
    """The name of what a layer's input is multiplied with, channel by channel, before it is rounded."""
    return f"{layer}.inverse"


def rows(place: Place) -> str:
    """The symbol of how many rows a value has."""
    return f"rows{place.level}" if place.rows == "pixels" else place.rows


def padded(channels: int) -> int:
    """Channels as values have them."""
    return -(-channels // ALIGNED) * ALIGNED


@dataclass(kw_only=True)
class _Made:
    """The 8 bits of a value, and their scales."""

    numbers: str
    scale: str


@dataclass
class _Selection:
    steps: Steps
    format_of: FormatOf
    calls: list[Call] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    _made: dict[tuple[str, Form], _Made] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._static = static_values(self.steps, self.format_of)
        self._needed = needed(self.steps, self.format_of, self._static)
        self._outputs = {value for values in self.steps.outputs.values() for value in values}
        self._widths = {step.out: step.n for step in self.steps.steps if isinstance(step, Linear)}

    def linear(self, step: Linear) -> None:
        format, name = linear_format(step, self.format_of, self._static), "+".join(step.layers)
        gated = step.activation == "geglu"
        m = rows(step.place)
        weights = self._weight(name, Weight(layers=step.layers, format=format), bias=step.bias)
        shape: dict[str, Option] = {"m": m, "n": step.n, "k": step.k, "bias": step.bias}
        more = {} if step.residual is None else {"residual": step.residual}
        x = {"x": step.x}
        if format in BY_TOKEN:
            made = self._token(step.x, step.place, step.k)
            x = {"x": made.numbers, "x_scale": made.scale}
        elif format == W8A8_SIGNED:
            shape["static"] = True
        inputs = {**x, **weights, **more}
        op = _LINEAR[format]
        if format in BY_TOKEN and gated:
            narrow, inverse = self._narrow(step.out)
            shape |= {"n": step.n // 2, **narrow}
            self._call(f"geglu_{op}", name, shape, {**inputs, **inverse}, {"out": step.out})
            return
        shape |= {"residual": bool(more)}
        if op == "linear_f16" and not gated:
            self._call(op, name, {**shape, "activation": step.activation}, inputs, {"out": step.out})
            return
        out = step.out if step.activation is None else f"{step.out}.wide"
        self._call(op, name, shape, inputs, {"out": out})
        if gated:
            narrow, inverse = self._narrow(step.out)
            self._call("geglu", name, {"m": m, "n": step.n // 2, **narrow}, {"x": out, **inverse}, {"out": step.out})
        elif step.activation is not None:
            behind: dict[str, Option] = {"m": m, "n": step.n, "activation": step.activation}
            self._call("activate", name, behind, {"x": out}, {"out": step.out})

    def conv(self, step: Conv) -> None:
        format = conv_format(step, self.format_of)
        n = step.n if step.out in self._outputs else padded(step.n)
        weight = Weight(layers=(step.layer,), format=format, picture=True, rows=n, columns=(step.c, step.c2))
        weights = self._weight(step.layer, weight, bias=step.bias)
        c, c2 = padded(step.c), padded(step.c2)
        shape: dict[str, Option] = {
            **_picture(step.level, c), "n": n, "kernel": step.kernel, "stride": step.stride, "bias": step.bias,
            "time": step.time is not None, "residual": step.residual is not None,
        }  # fmt: skip
        if step.upsample_to is not None:
            shape["upsample_to"] = (f"height{step.upsample_to}", f"width{step.upsample_to}")
        more = {name: value for name in ("time", "residual") if (value := getattr(step, name)) is not None}
        if format in (W4_HALVES, W8):
            op = "conv_w4" if format == W4_HALVES else "conv_w8"
            self._call(op, step.layer, shape, {"x": step.x, **weights, **more}, {"out": step.out})
            return
        shape["c2"] = c2
        if step.out in self._outputs:
            shape["out_dtype"] = "float32"
        if format == W8A8_PICTURE:
            inputs = self._pictures(step, c, c2)
            self._call("conv_w8a8", step.layer, shape, {**inputs, **weights, **more}, {"out": step.out})
            return
        second = {} if step.x2 is None else {"x2": step.x2}
        self._call("conv_f16", step.layer, shape, {"x": step.x, **second, **weights, **more}, {"out": step.out})

    def group_norm(self, step: GroupNorm) -> None:
        forms = self._needed[step.out]
        shape: dict[str, Option] = {
            **_picture(step.level, step.c), "c2": step.c2, "groups": step.groups, "eps": step.eps, "silu": step.silu
        }  # fmt: skip
        inputs = {"x": step.x, **({} if step.x2 is None else {"x2": step.x2}), **self._norm(step.layer)}
        if Form.PICTURE in forms:
            made = self._made[step.out, Form.PICTURE] = _names(step.out, Form.PICTURE)
            outputs = {"out": made.numbers, "scale": made.scale}
            self._call("group_norm_silu_quantize", step.layer, shape, inputs, outputs)
        if forms - {Form.PICTURE}:
            self._call("group_norm_silu", step.layer, shape, inputs, {"out": step.out})

    def layer_norm(self, step: LayerNorm) -> None:
        forms = self._needed[step.out]
        shape: dict[str, Option] = {"m": rows(step.place), "c": step.c, "eps": step.eps}
        inputs = {"x": step.x, **self._norm(step.layer)}
        if Form.ROW in forms:
            made = self._made[step.out, Form.ROW] = _names(step.out, Form.ROW)
            outputs = {"q": made.numbers, "scale": made.scale}
            self._call("layer_norm_quantize", step.layer, shape, inputs, outputs)
        if forms - {Form.ROW}:
            self._call("layer_norm", step.layer, shape, inputs, {"out": step.out})

    def attention(self, step: Attention) -> None:
        name = step.out
        inputs: dict[str, Operand] = {}
        strides = {}
        for role in ("q", "k", "v"):
            part = getattr(step, role)
            value, offset, _ = part if isinstance(part, tuple) else (part, 0, 0)
            inputs[role] = Operand(name=value, offset=offset)
            strides[f"{role}_stride"] = self._widths.get(value, step.heads * step.head_dim)
        shape: dict[str, Option] = {"batch": "batch", "m": _of_one(step.place), "n": _of_one(step.keys)}
        if step.head_dim == _HEAD:
            eight = self.format_of(Kind.ATTENTION, name) == A8_SCORES_TOKEN
            op, shape = "self_attention" if eight else "attention", {**shape, "heads": step.heads, **strides}
            if step.causal:
                shape["causal"] = True
            narrow, inverse = self._narrow(step.out)
            shape |= narrow
            inputs |= {key: Operand(name=value) for key, value in inverse.items()}
        elif step.heads == 1 and not step.causal:
            op, shape = "attention_wide", {**shape, "channels": step.head_dim, **strides}
        else:
            raise IncompatibleError(
                f"attention {name} has {step.heads} heads of {step.head_dim} channels; the cuda target has kernels for "
                f"heads of {_HEAD} and for one wide head; build with --target cpu or rtx"
            )
        self.calls.append(Call(op=op, layer=name, shape=shape, inputs=inputs, outputs={"out": step.out}))

    def activate(self, step: Activate) -> None:
        shape: dict[str, Option] = {"m": rows(step.place), "n": step.c, "activation": step.activation}
        self._call("activate", step.x, shape, {"x": step.x}, {"out": step.out})

    def _pictures(self, step: Conv, c: int, c2: int) -> dict[str, str]:
        """x and x2 in 8 bits; two pictures side by side have a scale each, since their ranges differ."""
        found: dict[str, str] = {}
        for name, value, channels in (("x", step.x, c), ("x2", step.x2, c2)):
            if value is not None:
                made = self._made.get((value, Form.PICTURE))
                if made is None:
                    made = self._made[value, Form.PICTURE] = _names(value, Form.PICTURE)
                    outputs = {"q": made.numbers, "scale": made.scale}
                    shape = _picture(step.level, channels)
                    self._call("quantize_per_image", step.layer, shape, {"x": value}, outputs)
                found |= {name: made.numbers, f"{name}_scale": made.scale}
        return found

    def _token(self, value: str, place: Place, c: int) -> _Made:
        made = self._made.get((value, Form.ROW))
        if made is None:
            made = self._made[value, Form.ROW] = _names(value, Form.ROW)
            outputs = {"q": made.numbers, "scale": made.scale}
            self._call("quantize_per_token", value, {"m": rows(place), "c": c}, {"x": value}, outputs)
        return made

    def _narrow(self, value: str) -> tuple[dict[str, Option], dict[str, str]]:
        """What a call has more in its shape and its inputs if it writes that value in 8 bits."""
        if value not in self._static:
            return {}, {}
        name = inverse_of(self._static[value])
        self.stored[name] = Inverse(layer=self._static[value])
        return {"quantized": True}, {"inverse": name}

    def _weight(self, name: str, weight: Weight, *, bias: bool) -> dict[str, str]:
        """Have a weight stored; the names of its tensors by those of the op's inputs."""
        found = {"weight": f"{name}.weight"}
        self.stored[found["weight"]] = Part(weight=weight, part="numbers")
        if weight.format.quantized:
            key = "weight_scale" if weight.format.activation is not None else "scale"
            found[key] = f"{name}.scale"
            self.stored[found[key]] = Part(weight=weight, part="scale")
        if bias:
            found["bias"] = f"{name}.bias"
            self.stored[found["bias"]] = Part(weight=weight, part="bias")
        return found

    def _norm(self, layer: str) -> dict[str, str]:
        for part in ("weight", "bias"):
            self.stored[f"{layer}.{part}"] = Parameter(name=f"{layer}.{part}")
        return {part: f"{layer}.{part}" for part in ("weight", "bias")}

    def _call(
        self, op: str, layer: str, shape: dict[str, Any], inputs: dict[str, str], outputs: dict[str, str]
    ) -> None:
        operands = {name: Operand(name=value) for name, value in inputs.items()}
        self.calls.append(Call(op=op, layer=layer, shape=shape, inputs=operands, outputs=outputs))


def _picture(level: int, channels: int) -> dict[str, Option]:
    return {"b": "batch", "h": f"height{level}", "w": f"width{level}", "c": channels}


def _of_one(place: Place) -> str:
    """The symbol of how many rows one picture has."""
    return f"pixels{place.level}" if place.rows == "pixels" else "tokens"


def _names(value: str, form: Form) -> _Made:
    return _Made(numbers=f"{value}.{form}", scale=f"{value}.{form}_scale")
