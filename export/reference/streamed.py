"""A torch module of any size whose weights are read when a layer runs and forgotten when it has run.

Computes in float32 whatever the weights are stored in: the reference that builds are held to, and what calibration
watches. Peak memory is the activations and one layer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from ...engine.specs import Arrays, ComponentSpec
from ..graph.master import WeightSource


class StreamedModule:
    """A component as a callable on arrays, with the inputs and outputs that its spec declares."""

    def __init__(self, module_factory: Callable[[], nn.Module], spec: ComponentSpec, weights: WeightSource) -> None:
        """`module_factory` is called on the meta device; `weights` are read at every call anew."""
        with torch.device("meta"):
            self.module = module_factory().eval()
        self.spec = spec
        self._weights = weights
        for name, child in self.module.named_modules():
            own = [part for part, parameter in child._parameters.items() if parameter is not None]
            if own:
                child.register_forward_pre_hook(self._fill(f"{name}." if name else "", own))
                child.register_forward_hook(_forget(dict(child._parameters)))

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once; dotted inputs (`key_values.0.key`) are handed over as one list under their first part."""
        arguments: dict[str, Any] = {}
        for tensor in self.spec.inputs:
            group, dot, _ = tensor.name.partition(".")
            value = torch.from_numpy(np.ascontiguousarray(inputs[tensor.name]))
            if dot:
                arguments.setdefault(group, []).append(value)
            else:
                arguments[group] = value
        with torch.inference_mode():
            results = self.module(**arguments)
        results = results if isinstance(results, tuple) else (results,)
        return {t.name: r.numpy() for t, r in zip(self.spec.outputs, results, strict=True)}

    def _fill(self, prefix: str, names: list[str]) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any) -> None:
            for name in names:
                data = self._weights.tensor(prefix + name).float()
                module._parameters[name] = nn.Parameter(data, requires_grad=False)

        return hook


def _forget(empty: dict[str, nn.Parameter | None]) -> Callable[..., None]:
    def hook(module: nn.Module, *_: Any) -> None:
        module._parameters.update(empty)

    return hook
