"""The ONNX nodes of every torch function that our modules call: one small rule each, gathered in `RULES`.

Forms that later passes and back ends rely on (opset 23):

- linear: `MatMul(x, Transpose(weight))`, then `Add(…, bias)` where there is one; the weight is `[out, in]` as in torch.
- group norm: `Reshape [0, groups, -1] → InstanceNormalization → Reshape (to the shape of x) → Mul → Add`, the scale and
  offset through `Unsqueeze` to `[channels, 1, 1]`.
- SiLU: `Mul(x, Sigmoid(x))`; GELU: `Gelu` (exact); attention: `Attention` in its 3-D form, heads as attributes.
- norms compute in float32 whatever the network's dtype: `Cast → norm → Cast`, their parameters float32 initializers.
- nearest upsampling: `Resize` asymmetric/floor, by scales, or by sizes which `Shape` nodes read from the skip.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.models.operations import attention, first_row, in_rows, rows_at, spread, upsample_like
from .tracing import ONNX_DTYPES, Traced, Tracer, Translation


def conv2d(
    t: Tracer, x: Traced, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """Two-dimensional convolution."""
    return t.node(
        "Conv",
        [x, weight, bias],
        kernel_shape=list(weight.shape[2:]),
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        group=groups,
    )


def linear(t: Tracer, x: Traced, weight: Tensor, bias: Tensor | None = None) -> Any:
    """`x · weightᵀ + bias`."""
    product = t.node("MatMul", [x, t.node("Transpose", [weight], perm=[1, 0])])
    return product if bias is None else t.node("Add", [product, bias])


def group_norm(t: Tracer, x: Traced, num_groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Any:
    """Group normalisation as an instance normalisation of groups."""
    wide = _cast(t, x, x.meta.dtype, torch.float32)
    ones, zeros = np.ones(num_groups, np.float32), np.zeros(num_groups, np.float32)
    grouped = t.node("Reshape", [wide, np.array([0, num_groups, -1])])
    normed = t.node("InstanceNormalization", [grouped, ones, zeros], epsilon=eps)
    normed = t.node("Reshape", [normed, t.node("Shape", [x])])
    for op, parameter in (("Mul", weight), ("Add", bias)):
        column = t.node("Unsqueeze", [t.parameter(parameter, torch.float32), np.array([1, 2])])
        normed = t.node(op, [normed, column])
    return _cast(t, normed, torch.float32, x.meta.dtype)


def layer_norm(
    t: Tracer, x: Traced, normalized_shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Any:
    """Layer normalisation over the last dimension."""
    wide = _cast(t, x, x.meta.dtype, torch.float32)
    parameters = [t.parameter(p, torch.float32) for p in (weight, bias)]
    normed = t.node("LayerNormalization", [wide, *parameters], axis=-1, epsilon=eps)
    return _cast(t, normed, torch.float32, x.meta.dtype)


def silu(t: Tracer, x: Traced, inplace: bool = False) -> Any:
    """`x · sigmoid(x)`."""
    return t.node("Mul", [x, t.node("Sigmoid", [x])])


def relu(t: Tracer, x: Traced, inplace: bool = False) -> Any:
    """Nothing below zero."""
    return t.node("Relu", [x])


def leaky_relu(t: Tracer, x: Traced, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """What is below zero, times a slope."""
    return t.node("LeakyRelu", [x], alpha=negative_slope)


def prelu(t: Tracer, x: Traced, weight: Tensor) -> Any:
    """The same by a slope of each channel."""
    return t.node("PRelu", [x, t.node("Unsqueeze", [weight, np.array([1, 2])])])


def pixel_shuffle(t: Tracer, x: Traced, upscale_factor: int) -> Any:
    """Channels become pixels: blocks of a whole factor's height and width."""
    return t.node("DepthToSpace", [x], blocksize=upscale_factor, mode="CRD")


def gelu(t: Tracer, x: Traced, approximate: str = "none") -> Any:
    """Gaussian error linear unit."""
    return t.node("Gelu", [x], approximate=approximate)


def attend(t: Tracer, query: Traced, key: Traced, value: Traced, heads: int, causal: bool = False) -> Any:
    """Multi-head attention; ONNX's default scale is ours, 1/sqrt(head_dim)."""
    return t.node("Attention", [query, key, value], q_num_heads=heads, kv_num_heads=heads, is_causal=int(causal))


def pad(t: Tracer, x: Traced, sizes: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Zeros around the last dimensions; torch counts the sizes from the last one, ONNX begins before ends."""
    if mode != "constant" or value:
        raise t.refusal(f"pad with mode {mode}, value {value}")
    ends = list(zip(sizes[::2], sizes[1::2], strict=True))[::-1]
    whole = [0] * (x.meta.dim() - len(ends))
    return t.node("Pad", [x, np.array([*whole, *(a for a, _ in ends), *whole, *(b for _, b in ends)])])


def resize(t: Tracer, x: Traced, size: Any, scale_factor: float, mode: str, **_: Any) -> Any:
    """Nearest-neighbour upsampling by a whole factor."""
    if size is not None or mode != "nearest" or scale_factor != int(scale_factor):
        raise t.refusal(f"interpolate with size {size}, scale_factor {scale_factor}, mode {mode}")
    scales = np.array([1, 1, scale_factor, scale_factor], np.float32)
    return t.node("Resize", [x, None, scales], **_NEAREST)


def resize_like(t: Tracer, x: Traced, like: Traced) -> Any:
    """Nearest-neighbour upsampling to another tensor's height and width."""
    sizes = t.node("Concat", [t.node("Shape", [x], end=2), t.node("Shape", [like], start=2)], axis=0)
    return t.node("Resize", [x, None, None, sizes], **_NEAREST)


def gather_rows(t: Tracer, x: Traced, index: Traced) -> Any:
    """One row of every batch entry."""
    return t.node("GatherND", [x, t.node("Unsqueeze", [index, np.array([1])])], batch_dims=1)


def gather_first(t: Tracer, x: Traced) -> Any:
    """The first row of every batch entry."""
    return t.node("Gather", [x, np.array(0)], axis=1)


def spread_rows(t: Tracer, row: Any, like: Traced) -> Any:
    """The same rows for every batch entry."""
    rows = t.node("Unsqueeze", [row, np.array([0] if row.dim() == 2 else [0, 1])])
    batch = t.node("Shape", [like], start=0, end=1)
    return t.node("Expand", [rows, t.node("Concat", [batch, np.array([1, 1])], axis=0)])


def split_rows(t: Tracer, x: Traced, rows: int) -> Any:
    """Cut the last dimension into rows."""
    return t.node("Reshape", [x, np.array([0, rows, -1])])


def pixel_unshuffle(t: Tracer, x: Traced, cut: int) -> Any:
    """Squares of pixels as channels; ONNX counts the pixels of a square before the channels, torch behind them."""
    channels = x.meta.shape[1]
    order = np.arange(channels * cut**2).reshape(cut**2, channels).T.ravel()
    return t.node("Gather", [t.node("SpaceToDepth", [x], blocksize=cut), order], axis=1)


def average_pool(t: Tracer, x: Traced, kernel_size: int, stride: int, ceil_mode: bool = False, **others: Any) -> Any:
    """The mean of squares; where the last ones hang over, of what there is of them."""
    if others:
        raise t.refusal(f"avg_pool2d with {sorted(others)}")
    sides: dict[str, Any] = {"kernel_shape": [kernel_size] * 2, "strides": [stride] * 2}
    return t.node("AveragePool", [x], ceil_mode=int(ceil_mode), count_include_pad=0, **sides)


def embedding(t: Tracer, ids: Traced, weight: Tensor, max_norm: float | None = None, **_: Any) -> Any:
    """Rows of a table; the other options only concern training."""
    if max_norm is not None:
        raise t.refusal(f"embedding with max_norm {max_norm}")
    return t.node("Gather", [weight, ids], axis=0)


def concatenate(t: Tracer, tensors: Sequence[Any], dim: int = 0) -> Any:
    """Join along one dimension."""
    return t.node("Concat", tensors, axis=dim)


def split(t: Tracer, x: Traced, sizes: Sequence[int], dim: int = 0) -> Any:
    """Cut into pieces of given sizes."""
    return t.node("Split", [x, np.array(sizes)], outputs=len(sizes), axis=dim)


def chunk(t: Tracer, x: Traced, chunks: int, dim: int = 0) -> Any:
    """Cut into equal pieces."""
    return t.node("Split", [x], outputs=chunks, axis=dim, num_outputs=chunks)


def flatten(t: Tracer, x: Traced, start: int) -> Any:
    """Merge all dimensions from `start` on."""
    return t.node("Reshape", [x, np.array([0] * start + [-1])])


def transpose(t: Tracer, x: Traced, first: int, second: int) -> Any:
    """Swap two dimensions."""
    order = list(range(x.meta.dim()))
    order[first], order[second] = order[second], order[first]
    return t.node("Transpose", [x], perm=order)


def reshape_as(t: Tracer, x: Traced, like: Traced) -> Any:
    """The shape of another tensor."""
    return t.node("Reshape", [x, t.node("Shape", [like])])


def index(t: Tracer, x: Traced, key: Any) -> Any:
    """Only `x[:, :, None, …]`: new dimensions among whole ones."""
    keys = key if isinstance(key, tuple) else (key,)
    if not all(k is None or k == slice(None) for k in keys):
        raise t.refusal(f"__getitem__ with {key}")
    return t.node("Unsqueeze", [x, np.array([i for i, k in enumerate(keys) if k is None])])


def unsqueeze(t: Tracer, x: Traced, dim: int) -> Any:
    """A new dimension of length one."""
    return t.node("Unsqueeze", [x, np.array([dim])])


def mean(t: Tracer, x: Traced, dims: Sequence[int]) -> Any:
    """The mean over some dimensions, which go."""
    return t.node("ReduceMean", [x, np.array(list(dims))], keepdims=0)


def argmax(t: Tracer, x: Traced, dim: int) -> Any:
    """The first place of the largest value."""
    return t.node("ArgMax", [x], axis=dim, keepdims=0)


def to(t: Tracer, x: Traced, dtype: torch.dtype) -> Any:
    """Another dtype; the value itself when it is the same."""
    return _cast(t, x, x.meta.dtype, dtype)


def _cast(t: Tracer, x: Any, source: torch.dtype, target: torch.dtype) -> Any:
    """A `Cast` node unless the dtypes agree."""
    return x if source == target else t.node("Cast", [x], to=ONNX_DTYPES[target])


def _elementwise(op: str) -> Translation:
    """A node of as many operands; Python numbers take the dtype of the tensor beside them."""

    def rule(t: Tracer, *operands: Any) -> Any:
        dtype = next(x.meta.dtype for x in operands if isinstance(x, Traced))
        numbers = [torch.tensor(x, dtype=dtype) if isinstance(x, (int, float)) else x for x in operands]
        return t.node(op, numbers)

    return rule


_NEAREST: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}

RULES: dict[Any, Translation] = {
    F.conv2d: conv2d,
    F.linear: linear,
    F.group_norm: group_norm,
    F.layer_norm: layer_norm,
    F.silu: silu,
    F.gelu: gelu,
    F.relu: relu,
    F.leaky_relu: leaky_relu,
    F.prelu: prelu,
    F.pixel_shuffle: pixel_shuffle,
    F.embedding: embedding,
    F.interpolate: resize,
    F.pad: pad,
    F.pixel_unshuffle: pixel_unshuffle,
    F.avg_pool2d: average_pool,
    attention: attend,
    upsample_like: resize_like,
    rows_at: gather_rows,
    first_row: gather_first,
    spread: spread_rows,
    in_rows: split_rows,
    torch.cat: concatenate,
    torch.split: split,
    Tensor.chunk: chunk,
    Tensor.flatten: flatten,
    Tensor.transpose: transpose,
    Tensor.reshape_as: reshape_as,
    Tensor.__getitem__: index,
    Tensor.unsqueeze: unsqueeze,
    Tensor.mean: mean,
    Tensor.argmax: argmax,
    Tensor.to: to,
    Tensor.float: lambda t, x: to(t, x, torch.float32),
    Tensor.int: lambda t, x: to(t, x, torch.int32),
    Tensor.add: _elementwise("Add"),
    Tensor.__add__: _elementwise("Add"),
    Tensor.mul: _elementwise("Mul"),
    Tensor.__mul__: _elementwise("Mul"),
    Tensor.__rmul__: _elementwise("Mul"),
    Tensor.__eq__: _elementwise("Equal"),
    Tensor.cos: _elementwise("Cos"),
    Tensor.sin: _elementwise("Sin"),
    Tensor.sigmoid: _elementwise("Sigmoid"),
    Tensor.tanh: _elementwise("Tanh"),
    # What a module may ask of a value: constants that it makes beside it hold data, hence the CPU.
    Tensor.dtype.__get__: lambda t, x: x.meta.dtype,  # type: ignore[attr-defined]
    Tensor.device.__get__: lambda t, x: torch.device("cpu"),
}
