"""What an execution context of TensorRT is told before a call: shapes, addresses and activation memory.

It is told only what has changed. The library captures a call in a CUDA graph, which is good for as long as everything
lies where it was; and the sizes of activations are worked out once for each set of shapes.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import IncompatibleError, RequestError
from .device import CudaDevice

Shape = tuple[int, ...]


class Bindings:
    """Of one context of one engine; `name` is for messages."""

    def __init__(self, name: str, engine: Any, context: Any) -> None:
        self._name = name
        self._engine = engine
        self._context = context
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._needs = 0

    def shapes(self, shapes: Mapping[str, Shape]) -> None:
        """The inputs' shapes. A shape outside the engine's range is a `RequestError` that names the range."""
        if shapes == self._shapes:
            return
        self._shapes = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                least, _, most = (tuple(s) for s in self._engine.get_tensor_profile_shape(name, 0))
                raise RequestError(
                    f"{self._name}: {name} has shape {shape}, this engine takes {least} to {most}; choose another size "
                    "or batch"
                )
        try:
            missing = self._context.infer_shapes()
        except RuntimeError as error:
            raise IncompatibleError(f"{self._name}: the engine takes no {shapes} ({error}); build it again") from error
        if missing:
            raise IncompatibleError(f"{self._name}: the engine also needs {missing}; build it again")
        self._needs = int(self._context.update_device_memory_size_for_shapes())
        self._shapes = dict(shapes)

    def scratch(self, device: CudaDevice) -> None:
        """As much of the device's scratch as these shapes need. Raises `MemoryBudgetError`."""
        scratch = device.scratch(self._needs)
        if scratch != self._scratch:
            self._context.set_device_memory(*scratch)
            self._scratch = scratch

    def address(self, name: str, address: int) -> None:
        """Where a tensor lies."""
        if self._addresses.get(name) != address:
            self._context.set_tensor_address(name, address)
            self._addresses[name] = address
