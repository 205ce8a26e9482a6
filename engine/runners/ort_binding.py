"""Inputs that stay in the memory of a GPU between calls of ONNX Runtime (`IOBinding`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..specs import Arrays
from .ort_session import import_onnxruntime


class BoundArray:
    """A copy of an array in a provider's `memory`, and what the host needs to know of it."""

    def __init__(self, host: np.ndarray, memory: str) -> None:
        self.value: Any = import_onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(host), memory, 0)
        self.shape = host.shape
        self.dtype = self.stored = host.dtype

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Fetch it."""
        host: np.ndarray = self.value.numpy()
        return host if dtype is None else host.astype(dtype, copy=False)


class BoundHeld:
    """Held inputs of a provider with memory of its own."""

    def __init__(self, arrays: Mapping[str, BoundArray]) -> None:
        self.arrays = dict(arrays)

    def release(self) -> None:
        """Give their memory back."""
        self.arrays.clear()


def run_bound(
    session: Any, feeds: Arrays, held: Mapping[str, BoundArray], outputs: Sequence[str], options: Any
) -> list[np.ndarray]:
    """What `session` makes of host arrays and of what is in its memory already; outputs on the host, in that order."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name, bound in held.items():
        binding.bind_ortvalue_input(name, bound.value)
    for name in outputs:
        binding.bind_output(name, "cpu")
    binding.synchronize_inputs()  # copies may still be under way when they are bound
    session.run_with_iobinding(binding, options)
    binding.synchronize_outputs()
    values: list[np.ndarray] = binding.copy_outputs_to_cpu()
    return values
