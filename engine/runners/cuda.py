"""Components as programs of our own kernels, on NVIDIA GPUs: neither torch, nor Triton, nor a compiler is needed.

A call is: what changes from step to step goes up, one graph runs, the outputs come back. The graph is captured when a
size first occurs; all that it names stays where it is from step to step and, unless the scratch moves, from picture to
picture. It ran on an H100; its test there is marked `gpu`.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ..errors import RequestError
from ..folder.files import WORDS_FILE
from ..folder.manifest import ComponentEntry, checked_file
from ..folder.openings import OpenGraph
from ..program.checks import check_files, words_of
from ..program.launches import choose_binaries
from ..program.read import KERNELS_FILE, PROGRAM_FILE, WEIGHTS_FILE, read_program
from .adapted import OfEntry, OpenRunner
from .base import Held, Value, Values, check_inputs
from .cuda_edges import check_edges
from .cuda_held import HeldValues
from .cuda_kernels import Kernels
from .cuda_program import LoadedProgram
from .cuda_weights import upload_file
from .cuda_words import WordTable
from .device import CudaDevice
from .gpu_runner import GpuRunner

__all__ = ["CudaDevice", "CudaRunner"]


class CudaRunner(OfEntry, GpuRunner):
    """Runs `program.json`, `weights.bin` and `kernels.bin` of a component on the first GPU.

    Outputs that stay on the GPU are what the next runner of the engine holds.
    """

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: CudaDevice) -> None:
        super().__init__(folder, name, entry, device)
        self._loaded: LoadedProgram | None = None
        self._opened: dict[str, OpenRunner] = {}
        device.closing.append(self.release)

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._loaded is not None

    def opened(self, graph: OpenGraph) -> OpenRunner:
        """See `Opens`."""
        from .cuda_open import CudaOpenRunner

        return self._opened.setdefault(
            graph.file, CudaOpenRunner(self._folder, self.name, self._entry, self.device, graph)
        )

    def load(self) -> None:
        """Check the hashes, then bring the weights in. `IntegrityError`, `IncompatibleError`, `MemoryBudgetError`."""
        self._ready()

    def release(self) -> None:
        """Give the GPU's memory back, and the scratch too: for what runs next it may be too large."""
        if self._loaded is None:
            return
        loaded, self._loaded = self._loaded, None
        self.device.driver.enter()
        self.device.driver.synchronize()  # an exception may have left a call running
        loaded.release()
        self.device.drop_scratch()

    def hold(self, inputs: Values) -> Held:
        """Copy them to the GPU as the program has them. They are checked here, and not again at a call."""
        some = replace(self.spec, inputs=tuple(tensor for tensor in self.spec.inputs if tensor.name in inputs))
        if unknown := inputs.keys() - {tensor.name for tensor in some.inputs}:
            there = ", ".join(tensor.name for tensor in self.spec.inputs)
            raise RequestError(f"there is no input {min(unknown)}; there are {there}")
        lengths = check_inputs(self.name, some, inputs)
        loaded = self._ready()
        self.device.driver.enter()
        return loaded.hold(inputs, lengths)

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`. A size that a kernel does not take is a `RequestError` that names the layer."""
        constant = held if isinstance(held, HeldValues) else None
        lengths = check_inputs(
            self.name,
            constant.missing if constant else self.spec,
            inputs,
            constant.lengths if constant else None,
        )
        loaded = self._ready()
        self.device.driver.enter()
        return loaded.run(inputs, constant, lengths, keep=keep)

    def _ready(self) -> LoadedProgram:
        if self._loaded is None:
            if self.device.forked:
                self.leave_behind()
            files = (PROGRAM_FILE, WEIGHTS_FILE, KERNELS_FILE)
            described, weights, kernels = (checked_file(self._folder, self._entry, name) for name in files)
            program = read_program(described)
            looked_up = words_of(program) is not None
            words = checked_file(self._folder, self._entry, WORDS_FILE) if looked_up else None
            sizes = {"weights": weights, "kernels": kernels, **({} if words is None else {"words": words})}
            check_files(program, str(described), **{name: path.stat().st_size for name, path in sizes.items()})
            check_edges(program, self.spec, str(described))
            driver = self.device.driver
            driver.enter()
            arch, binaries = choose_binaries(program, driver.compute_capability(), driver.device_name())
            arch = replace(arch, multiprocessors=driver.multiprocessors())  # how sums are shared out depends on it
            self._loaded = LoadedProgram(
                self.device,
                self.spec,
                program,
                arch,
                weights=upload_file(self.device, weights),
                kernels=Kernels(driver, kernels, binaries, portable=binaries is program.portable),
                words=None if words is None else WordTable(words, program),
            )
        return self._loaded
