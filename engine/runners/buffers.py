"""Where a component's tensors lie on the GPU: those that stay for many calls, and those that cross at every call."""

from collections.abc import Mapping

import numpy as np

from .device import CudaArray, CudaDevice
from .pinned import Pinned


class CudaHeld:
    """Inputs in the GPU's memory, in the types that the engine takes."""

    def __init__(self, arrays: Mapping[str, CudaArray]) -> None:
        self.arrays = dict(arrays)

    def release(self) -> None:
        """Free them."""
        for array in self.arrays.values():
            array.release()
        self.arrays.clear()


class Buffer:
    """One tensor: `there` on the GPU, and `here` on the host in memory that it copies from and to directly."""

    def __init__(self, device: CudaDevice, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.there = device.empty(shape, dtype)
        try:
            self.here = Pinned(device.driver, self.there.capacity)
        except BaseException:
            self.there.release()
            raise

    def release(self) -> None:
        """Free both; no copy may be under way."""
        self.here.release()
        self.there.release()


class Buffers:
    """Those of one component, by tensor. They grow, and stay at their addresses while they do not."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._all: dict[str, Buffer] = {}

    def __getitem__(self, name: str) -> Buffer:
        return self._all[name]

    def upload(self, name: str, values: np.ndarray, dtype: np.dtype) -> CudaArray:
        """Start to copy `values` as `dtype`; converted once, straight into the memory that is copied from."""
        buffer = self.sized(name, values.shape, dtype)
        self._device.driver.upload(buffer.there.address, buffer.here.filled(values, dtype))
        return buffer.there

    def sized(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
        """The tensor's buffer; a larger one where the shape does not fit."""
        buffer = self._all.get(name)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if buffer is None or buffer.there.capacity < size:
            if buffer is not None:
                del self._all[name]
                buffer.release()
            buffer = self._all[name] = Buffer(self._device, shape, dtype)
        return buffer

    def release(self) -> None:
        """Free them all."""
        while self._all:
            self._all.popitem()[1].release()
