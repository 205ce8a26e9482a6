"""How far a layer's product is off when its weight and its inputs are rounded as a format says."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .formats import Activation, Format
from .input_rounding import LEAST, rounded_inputs
from .rounded import Floats, Rounded
from .rounding import kept_of
from .static_ranges import fit_static

_OUTPUTS = 256
Matrix = TypeVar("Matrix", Floats, Tensor)


def some_outputs(weight: Matrix) -> Matrix:
    """Output channels of `[out, in]`, evenly spread, that stand for all of a layer where its error is estimated."""
    return weight[:: max(1, len(weight) // _OUTPUTS)]


def layer_error(
    weight: Floats, inputs: Floats, format: Format, *, rounded: Rounded | None = None, exact: Tensor | None = None
) -> tuple[float, float]:
    """Squared error of `inputs @ weight.T` in that format, and the squared product itself, both summed.

    `weight` `[out, in]`, `inputs` `[rows, in]`; static ranges are those of these inputs and (for integers, whose output
    is rounded too) of the product without a bias. Signed ones have one range here, since channels that differ are what
    smoothing is for. `rounded` saves the rounding of a weight that was rounded before; a static range for each channel
    goes into the weight, which is rounded anew. `exact` saves the product itself.

    Raises `ValueError` for a format that is no rounding.
    """
    if format.weight is None or not format.quantized:
        raise ValueError(f"format is {format}; only one with a scale rounds a layer")
    if exact is None:
        exact = torch.from_numpy(inputs) @ torch.from_numpy(weight).T
    how = format.activation
    if how is not None and format.ranged:
        result = _static_product(weight, inputs, format, how, exact)
    else:
        numbers = kept_of(weight, format.weight) if rounded is None else rounded.dequantized()
        result = _taken(inputs, format) @ torch.from_numpy(numbers).T
    return _squared(result.sub_(exact)), _squared(exact)


def _taken(inputs: Floats, format: Format) -> Tensor:
    x = torch.from_numpy(inputs)
    if format.activation is None or format.weight is None:
        return x
    amax = float(x.abs().amax()) if format.static else None
    scale = torch.tensor(max(amax or 0.0, LEAST) / 127) if format.activation.signed else None
    return rounded_inputs(x, format.activation, group=format.weight.group, amax=amax, scale=scale)


def _static_product(weight: Floats, inputs: Floats, format: Format, how: Activation, exact: Tensor) -> Tensor:
    """Inputs in whole steps of their channels' scales times weights that hold those scales; the output likewise."""
    assert format.weight is not None
    scale, zero = _range(inputs, how, np.square(weight).sum(0))
    steps = rounded_inputs(torch.from_numpy(inputs), how, scale=torch.from_numpy(scale), zero=zero) / torch.from_numpy(
        scale
    )
    product = steps @ torch.from_numpy(kept_of(weight * scale, format.weight)).T
    out_scale, out_zero = _range(exact.numpy(), how)
    return rounded_inputs(product, how, scale=torch.from_numpy(out_scale), zero=out_zero)


def _range(values: Floats, how: Activation, importance: Floats | None = None) -> tuple[Floats, int]:
    if how.granularity == "channel":
        return fit_static(values, values.min(0), values.max(0), importance=importance)
    scale, zero = fit_static(values.reshape(-1, 1), values.min(keepdims=True)[0], values.max(keepdims=True)[0])
    return np.broadcast_to(scale, values.shape[1:]).copy(), zero


def _squared(values: Tensor) -> float:
    return float(values.square().sum(dtype=torch.float64))
