"""The numbers of one component: a format for every layer, static ranges, and inputs for the rounding of weights."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ...engine.specs import Role
from .assign import Option, assign
from .attention_error import attention_error
from .attention_numbers import attention_numbers
from .attention_places import PROJECTIONS, Numbers
from .calibration import Calibration, LayerStatistics
from .formats import Format, Kind
from .layer_error import layer_error, some_outputs
from .quantization import Quantization, StaticRange
from .ranges import fit_ranges, static_error
from .recipes import Recipe
from .rounded import Floats
from .sensitivity import share
from .signed_ranges import fit_signed, signed_error

Read = Callable[[str], Floats | None]
"""A parameter by its name, in float32; None: there is none."""

_TOKENS = 2048
"""That a token attends to, where the price of its bits is estimated: between SDXL's 1,024 and 4,096 of 1024² pixels."""
HEADROOM = 0.8
"""The share of the goal that the estimate is to reach."""
ALONE = 1 / 2
"""The share of the goal that no layer of a U-Net may take by itself, if it can have more bits. Under heavy tails two
convolutions behind an upsampling, 4 % of its work, took all of it."""


class Abilities(Protocol):
    """What is asked of `export.target.Target`."""

    @property
    def formats(self) -> Mapping[Kind, frozenset[Format]]:
        """What it can do with each kind of layer."""

    @property
    def pace(self) -> Mapping[Format, float]:
        """Seconds that a product takes in a format, in any unit."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the component, as far as its format is to be chosen."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    """Of its weight; of an attention, which has none: how many heads it has."""


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """What one layer adds to the relative error of its component, by the estimate."""

    layer: str
    format: Format
    relative_error: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """What each layer would add to the component's squared error, and cost, in each format that it may have."""

    options: Mapping[str, tuple[Option, ...]]
    ranges: Mapping[str, StaticRange] = field(default_factory=dict)
    input_scales: Mapping[tuple[str, Format], Floats] = field(default_factory=dict)
    attentions: Mapping[str, Numbers] = field(default_factory=dict)
    budget: float | None = None
    """Bytes that all of their weights together may have."""
    apart: bool = False
    """Whether each layer's output is one of the component's own, so that errors do not add up."""

    def errors(self, numbers: Quantization) -> list[LayerError]:
        """Every layer's share of the error with these numbers, the largest first."""
        found = [
            LayerError(layer=name, format=option.format, relative_error=math.sqrt(option.error))
            for name, options in self.options.items()
            for option in options
            if option.format == numbers.assigned[name]
        ]
        return sorted(found, key=lambda e: (-e.relative_error, e.layer))

    def estimate(self, numbers: Quantization) -> float:
        """The component's relative error as the sum of its layers'."""
        errors = [error.relative_error for error in self.errors(numbers)]
        return max(errors, default=0.0) if self.apart else math.sqrt(sum(error**2 for error in errors))

    def more_bits(self, numbers: Quantization) -> dict[str, float]:
        """What the layers that have another format than the recipe's first cost; empty if there are none.

        `layers`; `bytes` more; `time`: of all layers' products, relative to what it was, less 1.
        """
        pairs = [
            (options[0], next(o for o in options if o.format == numbers.assigned[name]))
            for name, options in self.options.items()
        ]
        layers = sum(first is not now for first, now in pairs)
        if not layers:
            return {}
        seconds = [sum(pair[i].seconds for pair in pairs) for i in (0, 1)]
        return {
            "layers": float(layers),
            "bytes": sum(now.bytes - first.bytes for first, now in pairs),
            "time": seconds[1] / seconds[0] - 1,
        }

    def exhausted(self, numbers: Quantization) -> bool:
        """True if no layer can have a format that loses less."""
        least = {name: min(option.error for option in options) for name, options in self.options.items()}
        return self.budget is not None or all(
            option.error <= least[name]
            for name, options in self.options.items()
            for option in options
            if option.format == numbers.assigned[name]
        )


def measure_layers(
    layers: Iterable[Layer],
    recipe: Recipe,
    role: Role,
    read: Read,
    seen: Calibration,
    target: Abilities,
    *,
    ladder: bool = True,
) -> Measured:
    """Round every layer on its own, on the inputs that it has shown. Memory: one layer's weight at a time.

    Without `ladder` only in the recipe's own format, which is all that is needed where that is good enough, and a layer
    that takes too much of the goal by itself.
    """
    options: dict[str, tuple[Option, ...]] = {}
    ranges: dict[str, StaticRange] = {}
    scales: dict[tuple[str, Format], Floats] = {}
    attentions: dict[str, Numbers] = {}
    numbers = spent = 0.0
    alone = _alone(recipe, role)
    for layer in layers:
        if layer.kind is Kind.ATTENTION:
            format = recipe.format(role, layer.kind, layer.name)
            if format.quantized and (own := attention_numbers(layer.name, format, seen, layer.shape[0])):
                attentions[layer.name] = own
                options[layer.name] = _attention(layer, recipe, role, read, seen, target, own, ladder=ladder)
            continue
        shown, format = seen.layers.get(layer.name), recipe.format(role, layer.kind, layer.name)
        numbers += math.prod(layer.shape)
        if not format.quantized or shown is None:
            spent += _bytes(layer, format)
            continue
        after = [one for one in recipe.after(layer.kind, format) if one in target.formats[layer.kind]]
        weight, bias = read(f"{layer.name}.weight"), read(f"{layer.name}.bias")
        assert weight is not None
        weight = weight.reshape(len(weight), -1)
        weighs = share(layer.name, seen)
        found: list[Option] = []
        for one in (format, *after):
            if found and not ladder and found[-1].error <= alone:
                break
            if one.signed:
                scale = fit_signed(layer.name, weight, shown, one)
                scales[layer.name, one], error = scale, signed_error(weight, shown, scale, one)
            elif one.ranged:
                ranges[layer.name] = fit_ranges(weight, bias, shown)
                error = static_error(weight, bias, shown, ranges[layer.name])
            else:
                error = _error(weight, shown, one)
            seconds = math.prod(layer.shape) * shown.count * target.pace.get(one, 1.0)
            found.append(Option(format=one, error=weighs * error, seconds=seconds, bytes=_bytes(layer, one)))
        options[layer.name] = tuple(found)
    budget = recipe.bits[role] / 8 * numbers - spent if role in recipe.bits else None
    apart = role is Role.CONDITIONER
    return Measured(
        options=options, ranges=ranges, input_scales=scales, attentions=attentions, budget=budget, apart=apart
    )


def choose(measured: Measured, recipe: Recipe, role: Role, seen: Calibration, *, goal: float) -> Quantization:
    """The cheapest numbers with which the estimated relative error of the component is at most `goal`.

    With a budget instead: those with the least error that fit.
    """
    options = {name: _modest(own, _alone(recipe, role)) for name, own in measured.options.items()}
    wanted = 0.0 if measured.budget is not None else HEADROOM * goal
    if measured.apart:
        chosen = {name: assign({name: own}, goal=wanted**2)[name] for name, own in options.items()}
    else:
        chosen = assign(options, goal=wanted**2, budget=measured.budget)
    return Quantization(
        recipe=recipe,
        role=role,
        assigned={name: option.format for name, option in chosen.items()},
        ranges={name: found for name, found in measured.ranges.items() if chosen[name].format.ranged},
        input_scales={
            name: measured.input_scales[name, option.format]
            for name, option in chosen.items()
            if (name, option.format) in measured.input_scales
        },
        attentions={name: own for name, own in measured.attentions.items() if chosen[name].format.quantized},
        inputs={
            name: seen.layers[name].inputs
            for name, option in chosen.items()
            if name in seen.layers and _compensates(option.format, seen.layers[name])
        },
    )


def _alone(recipe: Recipe, role: Role) -> float:
    """The most that a layer may add by itself to the component's squared error."""
    if role in recipe.bits or role is not Role.UNET:
        return math.inf
    return float((ALONE * recipe.max_relative_error[role]) ** 2)


def _modest(options: tuple[Option, ...], alone: float) -> tuple[Option, ...]:
    """Those that add no more than that; the best if none does."""
    return tuple(option for option in options if option.error <= alone) or (min(options, key=lambda o: o.error),)


def _attention(
    layer: Layer,
    recipe: Recipe,
    role: Role,
    read: Read,
    seen: Calibration,
    target: Abilities,
    own: Numbers,
    *,
    ladder: bool,
) -> tuple[Option, ...]:
    """In 8 bits, and in floats if there is a `ladder` to them."""
    first = recipe.format(role, layer.kind, layer.name)
    shown = seen.layers[f"{layer.name}.{PROJECTIONS[0]}"]
    weights = [read(f"{layer.name}.{part}.weight") for part in PROJECTIONS]
    error = attention_error([w for w in weights if w is not None], shown.inputs, layer.shape[0], own)
    weighs = share(f"{layer.name}.{PROJECTIONS[0]}", seen)
    products = 2 * _TOKENS * shown.inputs.shape[1] * shown.count
    after = [one for one in recipe.after(layer.kind, first) if one in target.formats[layer.kind]] if ladder else []
    return tuple(
        Option(
            format=one,
            error=weighs * error if one.quantized else 0.0,
            seconds=products * target.pace.get(one, 1.0),
            bytes=0.0,
        )
        for one in (first, *after)
    )


def _error(weight: Floats, shown: LayerStatistics, format: Format) -> float:
    if not format.quantized:
        return 0.0
    error, reference = layer_error(some_outputs(weight), shown.inputs, format)
    return error / reference if reference else 0.0


def _compensates(format: Format, shown: LayerStatistics) -> bool:
    """Whether rounding is to make up for its errors.

    Convolutions do in every format: their taps are alike, which takes a third off the error in no time. Integers of 8
    bits in linear layers gain a tenth of an error that is small anyway, and the minutes that it takes count at full
    size. 8-bit floats round as coarsely as 4 to 5 bits.
    """
    how = format.weight
    return how is not None and format.quantized and (how.bits < 8 or how.kind == "float" or shown.taps > 1)


def _bytes(layer: Layer, format: Format) -> float:
    assert format.weight is not None
    return format.weight.bytes_of(layer.shape)
