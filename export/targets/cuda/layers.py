"""The nodes that are steps: convolutions, linears, norms and attention."""

from dataclasses import replace

import onnx_ir as ir

from .meanings import Constant, Form, Grouped, Meaning, Normed, Parameter, Rows
from .steps import Attention, Conv, LayerNorm, Linear, Place
from .walk import Walk, attributes

_OF_ROWS = frozenset({Form.TOKENS, Form.VECTOR, Form.STEPS, Form.EACH_STEP, Form.EACH_PICTURE, Form.EVALUATIONS})
"""Forms whose last axis is the channels."""


def conv(walk: Walk, node: ir.Node) -> Meaning:
    """A convolution, behind its concatenation and upsampling."""
    match walk.inputs(node):
        case (
            Rows(form=Form.PICTURE) as x,
            Parameter(form="", part="weight", shape=(n, c, kernel, _)) as weight,
            *bias,
        ):
            given = attributes(node, kernel_shape=None, strides=[1, 1], pads=[0] * 4, dilations=[1, 1], group=1)
            stride = given["strides"][0]
            level = x.place.level if x.upsample_to is None else x.upsample_to
            square = weight.shape[2:] == (kernel, kernel) and kernel % 2 and stride in (1, 2)
            usual = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "dilations": [1, 1], "group": 1}
            if not square or c != x.c + x.c2 or any(_plain(given[name]) != value for name, value in usual.items()):
                raise walk.refusal(node, "kernels are square, of an odd size and padded by half of it, strides 1 or 2")
            walk.add(
                node,
                Conv(
                    layer=weight.layer, level=x.place.level, x=x.name, out=weight.layer, c=x.c, n=n, x2=x.x2, c2=x.c2,
                    kernel=kernel, stride=stride, upsample_to=x.upsample_to, bias=_biased(walk, node, weight, *bias),
                ),
            )  # fmt: skip
            return Rows(name=weight.layer, c=n, place=Place(level=level + stride - 1), form=Form.PICTURE)
    raise walk.refusal(node)


def matmul(walk: Walk, node: ir.Node) -> Meaning:
    """A linear layer, so far without its bias."""
    match walk.inputs(node):
        case (
            Rows(plain=True) as x,
            Parameter(form="transposed", shape=(n, k)) as w,
        ) if k == x.c and x.form in _OF_ROWS:
            walk.add(node, Linear(layers=(w.layer,), place=x.place, x=x.name, out=w.layer, k=k, n=n, bias=False))
            return Rows(name=w.layer, c=n, place=x.place, form=x.form, end=x.end)
    raise walk.refusal(node)


def instance_normalization(walk: Walk, node: ir.Node) -> Meaning:
    """A group norm, so far without scale and offset."""
    match walk.inputs(node):
        case (Grouped(x=x, groups=groups), Constant(array=ones), Constant(array=zeros)) if (
            len(ones) == groups and (x.c + x.c2) % groups == 0 and (ones == 1).all() and (zeros == 0).all()
        ):
            return Normed(x=x, groups=groups, eps=attributes(node, epsilon=1e-5)["epsilon"])
    raise walk.refusal(node)


def layer_normalization(walk: Walk, node: ir.Node) -> Meaning:
    """A layer norm over channels."""
    given = attributes(node, axis=-1, epsilon=1e-5)
    match walk.inputs(node):
        case (
            Rows(form=Form.TOKENS | Form.VECTOR, plain=True) as x,
            Parameter(form="", shape=(c,)) as weight,
            bias,
        ) if given["axis"] == -1 and c == x.c and _biased(walk, node, weight, bias):
            norm = LayerNorm(layer=weight.layer, place=x.place, x=x.name, out=weight.layer, c=c, eps=given["epsilon"])
            walk.add(node, norm)
            return replace(x, name=weight.layer, alone=True)
    raise walk.refusal(node)


def attention(walk: Walk, node: ir.Node) -> Meaning:
    """Attention, and where queries, keys and values are linears of one x, these as one."""
    given = attributes(node, is_causal=0, q_num_heads=1, kv_num_heads=1)
    heads = given.pop("q_num_heads"), given.pop("kv_num_heads")
    causal = bool(given.pop("is_causal"))
    match walk.inputs(node):
        case (Rows(form=Form.TOKENS) as q, Rows(form=Form.TOKENS) as k, Rows(form=Form.TOKENS) as v) if (
            q.c == k.c == v.c and k.place == v.place and heads[0] == heads[1] and q.c % heads[0] == 0 and not given
        ):
            name = node.name or "attention"
            out = name.rpartition("/")[0] or name
            operands = _joined(walk, node, (q, k, v)) or (q.name, k.name, v.name)
            walk.add(
                node,
                Attention(
                    q=operands[0], k=operands[1], v=operands[2], out=out, heads=heads[0], head_dim=q.c // heads[0],
                    place=q.place, keys=k.place, causal=causal,
                ),
            )  # fmt: skip
            return Rows(name=out, c=q.c, place=q.place, form=Form.TOKENS)
    raise walk.refusal(node)


def _joined(walk: Walk, node: ir.Node, values: tuple[Rows, ...]) -> list[tuple[str, int, int]] | None:
    """Makes one step of the linears that make these, and gives each its columns; None where they are not alike."""
    linears = [walk.steps.get(rows.name) for rows in values]
    single = [step for step in linears if isinstance(step, Linear) and step.residual is step.activation is None]
    alike = {(step.x, step.bias) for step in single}
    alone = all(walk.alone(node, operand) for operand in range(len(values)))
    if len(single) < len(values) or len(alike) > 1 or not alone:
        return None
    layers = tuple(layer for step in single for layer in step.layers)
    parent = layers[0].rpartition(".")[0]
    out = f"{parent}." + "+".join(layer.removeprefix(f"{parent}.") for layer in layers)
    for step in single:
        del walk.steps[step.out]
    walk.add(node, replace(single[0], layers=layers, out=out, n=sum(step.n for step in single)))
    offsets = [sum(step.n for step in single[:i]) for i in range(len(single))]
    return [(out, offset, step.n) for offset, step in zip(offsets, single, strict=True)]


def _biased(walk: Walk, node: ir.Node, weight: Parameter, bias: Meaning | None = None) -> bool:
    """Whether there is one; it must be that of the weight's layer."""
    if bias is None:
        return False
    if bias != Parameter(layer=weight.layer, part="bias", shape=weight.shape[:1]):
        raise walk.refusal(node, f"its bias is not {weight.layer}.bias")
    return True


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
