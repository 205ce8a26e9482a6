"""How much working memory a component needs: the largest set of values alive at once, for any batch and picture size.

The graph's shapes are inferred at a few sizes (no weights are read), each value lives from the node that makes it to
the last node that reads it, and the peaks are fitted by the sum of products in `ActivationModel`.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ...engine.folder.manifest import ActivationModel
from ...engine.specs import ComponentSpec
from .liveness import Node, live_bytes_of, nodes_of
from .weightless import LATENT_PIXELS, Weightless

if TYPE_CHECKING:
    import onnx_ir as ir

# Where the peak is sampled: latents of 256² to 1024² pictures, prompts of one and two chunks.
Samples = Mapping[str, tuple[int, ...]]
_SAMPLES: Samples = {"batch": (1, 2), "tokens": (77, 154), "steps": (1, 50), "side": (32, 64, 128)}
_LATENT_SIDE = 8
_NO_SCRATCH: Mapping[str, float] = {}
_NO_LENGTHS: Mapping[str, int] = {}


def activation_model(
    component: str, model: "ir.Model", spec: ComponentSpec, scratch: Mapping[str, float] = _NO_SCRATCH
) -> ActivationModel:
    """Fit the peak of `live_bytes` over batch, tokens, steps and pixels, whichever of them the component has.

    The model may lack its weights. A term in pixels² appears only for attention that is written out, not fused. Raises
    `IncompatibleError` for a graph whose shapes cannot be inferred.
    """
    return Outline.of(component, model, spec, scratch).whole()


def fit(
    spec: ComponentSpec,
    measure: Callable[[Mapping[str, int]], int | None],
    *,
    samples: Samples = _SAMPLES,
    squares: bool = True,
) -> ActivationModel | None:
    """A model of the bytes that `measure` tells at a few sizes of a component's symbols; None if it cannot tell.

    It is never below them there. `samples`: the sizes, `side` for latents' height and width. `squares`: whether memory
    may grow with the square of the pixels.
    """
    symbols = set(spec.symbols())
    sized = not symbols.isdisjoint(("height", "image_height"))
    axes = [name for name in samples if name in symbols or (name == "side" and sized)]
    found = []
    for values in itertools.product(*(samples[name] for name in axes)):
        sizes: dict[str, int] = dict(zip(axes, values, strict=True))
        side = sizes.pop("side", 0)
        measured = measure(sizes | _sides(side) if side else sizes)
        if measured is None:
            return None
        found.append(({**sizes, "pixels": side * side * LATENT_PIXELS}, measured))
    keys = ["1", "batch"]
    keys += ["batch*tokens"] if "tokens" in symbols else []
    keys += ["steps", "batch*steps"] if "steps" in symbols else []
    keys += ["batch*pixels"] if sized else []
    keys += ["batch*pixels*pixels"] if sized and squares else []
    return _fit(keys, found)


def _sides(side: int) -> dict[str, int]:
    """Latents of that height and width, and their picture."""
    picture = _LATENT_SIDE * side
    return {"height": side, "width": side, "image_height": picture, "image_width": picture}


def live_bytes(
    component: str, model: "ir.Model", sizes: Mapping[str, int], scratch: Mapping[str, float] = _NO_SCRATCH
) -> int:
    """The most bytes alive at once in one call, for example at `{"batch": 2, "height": 64, "width": 64}`.

    Counted are outputs and everything between; not counted are weights, what is computed from weights alone, and the
    inputs, which are the caller's. `scratch`: value → what its node needs while it runs, in bytes for each of its own.
    """
    constants = {str(name) for name in model.graph.initializers}
    outputs = [str(value.name) for value in model.graph.outputs]
    return live_bytes_of(nodes_of(model), outputs, constants, Weightless(component, model).bytes_at(sizes), scratch)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A graph's nodes and the bytes of its values at a few sizes: what tells the memory of its parts.

    Made of the master; passes may then rewrite it, as long as what crosses a cut keeps its name.
    """

    spec: ComponentSpec
    nodes: "tuple[Node, ...]"
    constants: frozenset[str]
    outputs: tuple[str, ...]
    bytes_at: Callable[[Mapping[str, int]], Mapping[str, int]]
    scratch: Mapping[str, float]
    """See `live_bytes`."""

    @classmethod
    def of(
        cls,
        component: str,
        model: "ir.Model",
        spec: ComponentSpec,
        scratch: Mapping[str, float] = _NO_SCRATCH,
        *,
        known: Mapping[str, int] = _NO_LENGTHS,
    ) -> Self:
        """The outline of a model, which may lack its weights. `known`: lengths that are no size of a call."""
        found: dict[tuple[tuple[str, int], ...], Mapping[str, int]] = {}
        weightless = Weightless(component, model)

        def measure(sizes: Mapping[str, int]) -> int:
            found[tuple(sorted(sizes.items()))] = weightless.bytes_at({**known, **sizes})
            return 1

        fit(spec, measure)  # which says at what sizes
        return cls(
            spec=spec,
            nodes=nodes_of(model),
            constants=frozenset(str(name) for name in model.graph.initializers),
            outputs=tuple(str(value.name) for value in model.graph.outputs),
            bytes_at=lambda sizes: found[tuple(sorted(sizes.items()))],
            scratch=scratch,
        )

    def whole(self) -> ActivationModel:
        """Working memory of a call of all of it; see `activation_model`."""
        return self._fit(lambda sizes: self._alive(self.nodes, self.outputs, self.bytes_at(sizes)))

    def segments(
        self, behind: Sequence[str], crossing: Sequence[Sequence[str]]
    ) -> tuple[ActivationModel, ActivationModel]:
        """Working memory of the segment that takes most, and the most that is carried from one to the next.

        `behind`: for each cut the value whose node it follows; `crossing`: the values that cross it.
        """
        at = {name: index for index, node in enumerate(self.nodes) for name in node.outputs}
        ends = [*(at[name] + 1 for name in behind), len(self.nodes)]
        parts = [self.nodes[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        given = [*crossing, self.outputs]

        def inside(sizes: Mapping[str, int]) -> int:
            bytes_of = self.bytes_at(sizes)
            return max(self._alive(part, outputs, bytes_of) for part, outputs in zip(parts, given, strict=True))

        def carried(sizes: Mapping[str, int]) -> int:
            bytes_of = self.bytes_at(sizes)
            return max((sum(bytes_of[name] for name in names) for names in crossing), default=0)

        return self._fit(inside), self._fit(carried)

    def _alive(self, nodes: "Sequence[Node]", outputs: Sequence[str], bytes_of: Mapping[str, int]) -> int:
        return live_bytes_of(nodes, outputs, self.constants, bytes_of, self.scratch)

    def _fit(self, measure: Callable[[Mapping[str, int]], int]) -> ActivationModel:
        fitted = fit(self.spec, measure)
        assert fitted is not None
        return fitted


def _fit(keys: list[str], samples: list[tuple[dict[str, int], int]]) -> ActivationModel:
    """Non-negative coefficients by relative least squares, then raised until no sample is above the model."""
    table = np.array([[math.prod(s[k] for k in key.split("*") if k != "1") for key in keys] for s, _ in samples], float)
    peaks = np.array([max(peak, 1) for _, peak in samples], float)
    used = list(range(len(keys)))
    while True:
        weighted = table[:, used] / peaks[:, None]
        scale = np.abs(weighted).max(axis=0)
        found = np.linalg.lstsq(weighted / scale, np.ones(len(peaks)), rcond=1e-9)[0] / scale
        # Shares below a thousandth are the rounding of small tensors, not a term of the network.
        share = (table[:, used] * found / peaks[:, None]).max(axis=0)
        if len(used) == 1 or share.min() > 1e-3:
            break
        used.pop(int(share.argmin()))
    raised = found * max(1.0, float((peaks / (table[:, used] @ found)).max()))
    # Six digits are the same on every machine; the millionth more keeps them from rounding below a sample.
    terms = {keys[i]: float(f"{c * (1 + 1e-6):.6g}") for i, c in zip(used, raised, strict=True)}
    return ActivationModel(terms=terms)


def dequantized_bytes(graph: "ir.Graph") -> int:
    """Bytes of all weights that `DequantizeLinear` makes floats of, together."""
    found = 0
    for node in graph:
        weight = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.is_initializer() and weight.shape is not None:
            found += 4 * math.prod(int(length) for length in weight.shape)
    return found
