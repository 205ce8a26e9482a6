"""The `tensorrt` target: TensorRT engines for the GPU at hand, for data centres above all.

Lowered as for TensorRT for RTX. Written to the library's documents and to the source of its Python bindings (11.1), and
not run yet: its package could not be had. What is held to a reference at the end of a build are the engines themselves,
since the GPU is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ....engine.errors import IncompatibleError
from ....engine.runners.cuda_driver import CudaDriver
from ....engine.runners.tensorrt_library import FULL, TensorRTLibrary, driver_too_old
from ....engine.specs import Role
from ...quantize.formats import FLOAT16, W8, W8A8_SIGNED, W8A8_SIGNED_CHANNEL, Format, Kind
from ...target import LIBRARIES
from ..rtx.target import RtxTarget

if TYPE_CHECKING:
    from ....engine.folder.manifest import ActivationModel
    from ....engine.specs import ComponentSpec

# Explicit quantization is documented for int8 on both sides of a product. Of weights alone only 4 bits in linears are,
# which no recipe of ours has by themselves; int8 ones of a conditioner, read once a picture, are numbers all the same.
FORMATS: Mapping[Kind, frozenset[Format]] = {
    Kind.LINEAR: frozenset({FLOAT16, W8, W8A8_SIGNED, W8A8_SIGNED_CHANNEL}),
    Kind.CONV: frozenset({FLOAT16, W8A8_SIGNED, W8A8_SIGNED_CHANNEL}),
    Kind.EMBEDDING: frozenset({FLOAT16}),
}


@dataclass(frozen=True, kw_only=True)
class TensorRTTarget(RtxTarget):
    """TensorRT on the first GPU of this machine."""

    name: str = "tensorrt"
    architectures: tuple[str, ...] = ()
    runner: str = "tensorrt_full"
    runs_here: bool = True
    band_bytes: int | None = None
    formats: Mapping[Kind, frozenset[Format]] = field(default_factory=lambda: FORMATS)
    libraries: tuple[str, ...] = (*LIBRARIES, *FULL.packages.values())
    library: TensorRTLibrary = FULL

    def of(self, role: Role) -> Self:
        """Itself; a picture's encoder, read once, may have weights of 8 bits, which are numbers all the same."""
        if role is not Role.VAE_ENCODER:
            return self
        return replace(self, formats={**self.formats, Kind.CONV: self.formats[Kind.CONV] | {W8}})

    def machine(self) -> Mapping[str, str]:
        """The GPU. Raises `IncompatibleError` where there is none, or no library."""
        try:
            driver = CudaDriver()
        except IncompatibleError as error:
            raise IncompatibleError(
                f"--target {self.name} builds on the GPU that the engine is for, and there is none: {error}; "
                "--target rtx and --target cuda build anywhere"
            ) from error
        try:
            gpu = "{} (compute capability {}.{})".format(driver.device_name(), *driver.compute_capability())
            problem = driver_too_old(self.library, driver.cuda_version())
        finally:
            driver.close()
        if problem is not None:
            raise IncompatibleError(problem)
        super().machine()
        return {"GPU": gpu}

    def memory(self, engine: Path, spec: "ComponentSpec") -> "ActivationModel | None":
        """See `RtxTarget.memory`."""
        from .memory import working_memory

        return working_memory(engine, spec, self.largest)
