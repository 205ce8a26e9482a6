"""The compiled kernels of a component: brought to the GPU one by one, when a launch first names them."""

from collections.abc import Mapping
from pathlib import Path

from ..errors import StorageError
from ..program.launches import KernelLaunch, ptx_of
from ..program.program import BinarySpec
from .cuda_driver import CudaDriver


class Kernels:
    """Of one `kernels.bin` on one GPU.

    `binaries`: those for it, by the names that launches use; `portable`: they are PTX. The driver compiles that when a
    kernel is first loaded, and keeps what it made for the next process.
    """

    def __init__(
        self, driver: CudaDriver, path: Path, binaries: Mapping[str, BinarySpec], *, portable: bool = False
    ) -> None:
        self.binaries = binaries
        self._portable = portable
        self._driver = driver
        self._path = path
        self._modules: list[int] = []
        self._functions: dict[str, int] = {}

    def load(self, name: str) -> None:
        """Bring a kernel to the GPU; a no-op if it is there. Not while a graph is captured."""
        if name in self._functions:
            return
        spec = self.binaries[name]
        try:
            with self._path.open("rb") as file:
                file.seek(spec.offset)
                content = file.read(spec.size)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error.strerror}") from error
        if self._portable:
            content = ptx_of(content, name)
        self._modules.append(module := self._driver.load_module(content))
        self._functions[name] = self._driver.function(module, spec.entry, shared=spec.shared)

    def launch(self, launch: KernelLaunch) -> None:
        """Start a kernel that is loaded."""
        spec = self.binaries[launch.binary]
        self._driver.launch(
            self._functions[launch.binary], launch.grid, launch.parameters, threads=spec.threads, shared=spec.shared
        )

    def release(self) -> None:
        """Give them back; none may be running."""
        self._functions.clear()
        while self._modules:
            self._driver.unload_module(self._modules.pop())
