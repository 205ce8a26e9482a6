"""The one seam between the pipeline and a back end.

A runner is one component of an engine folder on one back end: it declares inputs and outputs, can be loaded, called
with arrays, and released. The pipeline and the memory plan know nothing else about a back end.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from ..errors import NumericError, RequestError
from ..specs import ComponentSpec

Arrays = Mapping[str, np.ndarray]


class Runner(Protocol):
    """A component that can be called with arrays."""

    @property
    def name(self) -> str:
        """The component's name in the engine folder, for example `base/unet`."""

    @property
    def spec(self) -> ComponentSpec:
        """What goes in and what comes out."""

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights once loaded."""

    def load(self) -> None:
        """Bring the weights into memory; a no-op if they are there. Every file's hash is checked before it is read."""

    def release(self) -> None:
        """Give the memory back; a no-op if nothing is loaded."""

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once. Loads first if needed; outputs are fresh arrays that the caller owns."""


class Loaded:
    """`with Loaded(runner):` keeps a runner in memory for a block, and releases it afterwards."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def __enter__(self) -> Self:
        self.runner.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runner.release()


def check_inputs(name: str, spec: ComponentSpec, inputs: Arrays) -> dict[str, int]:
    """Hold `inputs` to the declared names, dtypes and shapes; return the length of every symbol.

    Raises `RequestError` that names the tensor, what it is and what it should be.
    """
    wanted = {t.name for t in spec.inputs}
    if wanted != set(inputs):
        missing, unknown = sorted(wanted - set(inputs)), sorted(set(inputs) - wanted)
        raise RequestError(f"{name}: missing inputs {missing}, unknown inputs {unknown}")
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        array = inputs[tensor.name]
        if array.dtype.name != tensor.dtype:
            raise RequestError(f"{name}: input {tensor.name} is {array.dtype.name}, it must be {tensor.dtype}")
        fits = len(array.shape) == len(tensor.shape) and all(
            actual == (declared if isinstance(declared, int) else sizes.setdefault(declared, actual))
            for actual, declared in zip(array.shape, tensor.shape, strict=True)
        )
        if not fits:
            raise RequestError(
                f"{name}: input {tensor.name} has shape {array.shape}, it must be {tensor.shape}"
                + (f" with {sizes}" if sizes else "")
            )
    return sizes


def check_outputs(name: str, outputs: Arrays) -> None:
    """Raise `NumericError` for NaN or Inf in `outputs`.

    For all that goes on into another component: its integer kernels would make ordinary numbers of NaN, and a wrong
    picture of those.
    """
    for output, array in outputs.items():
        if not np.isfinite(array).all():
            raise NumericError(
                f"{name} gave NaN or Inf ({output}); rebuild the engine with the fp32 recipe, or check the checkpoint"
            )
