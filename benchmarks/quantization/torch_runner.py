"""torch modules as runners of our pipeline: whatever is done to their layers, all around them stays the same."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketxl.engine.runners.base import Device, Footprint, Held, HostHeld, Range, Sizes, Value, Values
from pocketxl.engine.runners.ort import OrtDevice
from pocketxl.engine.specs import Arrays, ComponentSpec
from pocketxl.export.components import Component


@dataclass(kw_only=True)
class TorchRunner:
    """A module in memory, called with one row at a time, as engines on a processor are."""

    name: str
    spec: ComponentSpec
    module: nn.Module
    rows: int = 1
    ranges: Mapping[str, Range] = field(default_factory=dict)
    loaded: bool = True
    device: Device = field(default_factory=OrtDevice)
    seen: list[dict[str, np.ndarray]] | None = None
    """Where the inputs of its calls go; None: nowhere."""

    def footprint(self, sizes: Sizes) -> Footprint:
        """Nothing: without a budget a plan decides nothing."""
        return Footprint(pool="host", weights=0, working=0)

    def load(self) -> None:
        """It is loaded."""

    def release(self) -> None:
        """It stays."""

    def leave_behind(self) -> None:
        """Nothing that another process could not use."""

    def hold(self, inputs: Values) -> Held:
        """The arrays themselves."""
        return HostHeld({name: np.asarray(value) for name, value in inputs.items()})

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`."""
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        if isinstance(held, HostHeld):
            arrays |= held.inputs
        if self.seen is not None:
            self.seen.append(arrays)
        return dict(self.outputs(arrays))

    def outputs(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """The module's outputs by the names that its spec declares; dotted inputs are handed over as one list."""
        arguments: dict[str, Any] = {}
        for tensor in self.spec.inputs:
            group, dot, _ = tensor.name.partition(".")
            value = torch.from_numpy(np.ascontiguousarray(arrays[tensor.name]))
            if dot:
                arguments.setdefault(group, []).append(value)
            else:
                arguments[group] = value
        with torch.no_grad():  # not inference_mode: some peers' tensors do not stand it
            results = self.module(**arguments)
        results = results if isinstance(results, tuple) else (results,)
        return {t.name: r.float().numpy() for t, r in zip(self.spec.outputs, results, strict=True)}


def torch_runners(components: Mapping[str, Component]) -> dict[str, TorchRunner]:
    """Every component with all of its weights in float32."""
    return {name: TorchRunner(name=name, spec=c.spec, module=_module(c)) for name, c in components.items()}


def _module(component: Component) -> nn.Module:
    with torch.device("meta"):
        module = component.module().eval()
    state = {name: component.weights.tensor(name).float() for name in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False)
