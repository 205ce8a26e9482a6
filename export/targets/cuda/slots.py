"""Which calls have places for low-rank pairs, and what each becomes: see `engine.program.slots`.

Every linear layer and convolution but the one that writes a picture, in float32. Where a layer multiplies 8-bit numbers
the way down does so too, on the numbers that are there; where its weight has 4 or 8 bits and its input is in halves, so
is the pair.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ....engine.program.program import Call, Operand, Option, ValueSpec
from ....engine.program.slots import Slot
from .select import inverse_of
from .stored import Part, Stored, Weight

_EIGHT_BITS: Final = {
    "linear_w8a8": "linear_w8a8",
    "geglu_linear_w8a8": "linear_w8a8",
    "geglu_linear_w4a8": "linear_w8a8",
    "linear_w4a8": "linear_w8a8",
    "conv_w8a8": "conv_w8a8",
}
_HALVES: Final = {
    "linear_w4": "linear_f16",
    "linear_w8": "linear_f16",
    "linear_f16": "linear_f16",
    "conv_w4": "conv_f16",
    "conv_w8": "conv_f16",
    "conv_f16": "conv_f16",
}
"""Op → the op of the way down."""
_GATED: Final = {"geglu_linear_w8a8": "linear_w8a8", "geglu_linear_w4a8": "linear_w4a8"}
"""Op → the op that stops before the gate."""


def slots_of(calls: Sequence[Call], stored: Mapping[str, Stored]) -> Iterator[Slot]:
    """The slots of a program's calls."""
    for at, call in enumerate(calls):
        weight = stored.get(call.inputs["weight"].name) if "weight" in call.inputs else None
        known = call.op in _EIGHT_BITS or call.op in _HALVES
        if known and isinstance(weight, Part) and call.shape.get("out_dtype", "float16") == "float16":
            yield _slot(at, call, weight.weight)


def _slot(at: int, call: Call, weight: Weight) -> Slot:
    name, ranks, picture = call.layer, f"ranks{len(weight.layers)}", "h" in call.shape
    gated, eight = call.op in _GATED, call.op in _EIGHT_BITS
    out = call.outputs["out"]
    activation = call.shape.get("activation")
    added = f"{out}.gated" if gated else out if activation is None else f"{out}.active"
    plain, inner = f"{added}.plain", f"{name}.lora.inner"
    width = _whole(call, "n") * (2 if gated else 1)
    if picture:
        kernel = _whole(call, "kernel", 3)
        taken: tuple[int, ...] = (kernel, kernel, _whole(call, "c") + _whole(call, "c2", 0))
    else:
        taken = (_whole(call, "k"),)
    down = ValueSpec(name=f"{name}.lora.down", shape=(ranks, *taken), dtype="int8" if eight else "float16")
    scale = ValueSpec(name=f"{name}.lora.down_scale", shape=(ranks,), dtype="float32") if eight else None
    up = ValueSpec(name=f"{name}.lora.up", shape=(width, ranks))
    own = replace(call, outputs={"out": plain})
    narrow: dict[str, Option] = {"quantized": True} if call.shape.get("quantized") else {}
    inverse = {"inverse": call.inputs["inverse"]} if narrow else {}
    if gated:
        shape: dict[str, Option] = {key: value for key, value in call.shape.items() if key != "quantized"}
        inputs = {key: operand for key, operand in call.inputs.items() if key != "inverse"}
        own = replace(own, op=_GATED[call.op], shape={**shape, "n": width, "residual": False}, inputs=inputs)
    elif activation is not None:  # which has to wait for the sum
        own = replace(own, shape={**call.shape, "activation": None})
    upward = Call(
        op="linear_f16",
        layer=name,
        shape={"m": _rows(call), "n": width, "k": ranks, "bias": False, "residual": True},
        inputs={"x": Operand(name=inner), "weight": Operand(name=up.name), "residual": Operand(name=plain)},
        outputs={"out": added},
    )
    behind = {} if activation is None else {"activation": activation}
    last = Call(
        op="geglu" if gated else "activate",
        layer=name,
        shape={"m": call.shape["m"], "n": _whole(call, "n"), **behind, **narrow},
        inputs={"x": Operand(name=added), **inverse},
        outputs={"out": out},
    ) if added != out else None  # fmt: skip
    return Slot(
        layers=weight.layers,
        at=at,
        calls=(_downward(call, ranks, down, scale, inner), own, upward, *(() if last is None else (last,))),
        down=down,
        down_scale=scale,
        up=up,
        inverse=inverse_of(weight.layers[0]) if call.shape.get("static") else None,
        channels=tuple(c for c in weight.columns if c) if picture else (),
    )


def _downward(call: Call, ranks: str, down: ValueSpec, scale: ValueSpec | None, inner: str) -> Call:
    """The layer's product with other weights, and nothing behind it."""
    dropped = {"bias", "time", "residual", "activation", "quantized"}
    shape: dict[str, Option] = {key: value for key, value in call.shape.items() if key not in dropped}
    shape |= {"n": ranks, "bias": False}
    weights = {"weight": Operand(name=down.name)}
    if scale is not None:
        weights["weight_scale"] = Operand(name=scale.name)
    inputs = {key: operand for key, operand in call.inputs.items() if key in ("x", "x2", "x_scale", "x2_scale")}
    return Call(
        op=_EIGHT_BITS.get(call.op) or _HALVES[call.op],
        layer=call.layer,
        shape=shape,
        inputs={**inputs, **weights},
        outputs={"out": inner},
    )


def _rows(call: Call) -> Option:
    """How many rows the output has."""
    if "h" not in call.shape:
        return call.shape["m"]
    seen = call.shape.get("upsample_to")
    height = seen[0] if isinstance(seen, tuple) else call.shape["h"]
    level = int(str(height).removeprefix("height"))
    return f"rows{level + (call.shape.get('stride', 1) == 2)}"


def _whole(call: Call, name: str, default: int | None = None) -> int:
    value = call.shape.get(name, default)
    assert isinstance(value, int), (call.layer, name, value)
    return value
