"""The one seam between the pipeline and a back end.

A runner is one component of an engine on one back end: it declares inputs and outputs, says what memory it takes, can
be loaded, called with arrays, and released. What does not change from call to call is handed over once (`hold`). The
pipeline and the memory plan know nothing else about a back end.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np

from ..errors import NumericError, RequestError
from ..specs import Arrays, ComponentSpec

Pool = Literal["host", "device"]
"""The machine's memory, and the GPU's own."""


class DeviceArray(Protocol):
    """An array that lies where its back end wants it; `numpy.asarray` fetches it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths, as numpy's."""

    @property
    def dtype(self) -> np.dtype:
        """The type that `numpy.asarray` gives, as the component's spec declares it."""

    @property
    def stored(self) -> np.dtype:
        """The type in which its numbers lie there."""

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Copy it to the host."""


Value = np.ndarray | DeviceArray
Values = Mapping[str, Value]


class Held(Protocol):
    """Inputs that stay the same over many calls, brought to where and in what type the back end wants them."""

    def release(self) -> None:
        """Give their memory back; a no-op the second time."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the memory of one call depends on: rows, prompt tokens, evaluations, and pixels of the picture."""

    rows: int
    tokens: int
    steps: int
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of one component in one pool."""

    pool: Pool
    weights: int
    """From load to release."""
    working: int
    """On top of that during a call, outputs included."""
    retained: int = 0
    """What of the working memory stays between calls until release."""
    scratch: bool = False
    """The working memory is the device's one scratch: it serves all components, is as large as the largest call since
    it was last given back, and is given back with every component that is released."""


Range = tuple[int, int]
"""The least and the most that there may be, ends included."""


class Device(Protocol):
    """What the runners of one engine share: a stream, streams' memory, threads. Opened when first needed."""

    @property
    def name(self) -> str:
        """What it is called, for example `NVIDIA GeForce RTX 4060`; empty if it does not say."""

    @property
    def concurrent(self) -> bool:
        """Whether its runners may be called from several threads at once."""

    @property
    def overhead(self) -> Mapping[Pool, int]:
        """Bytes that the process takes in each pool before the first weight."""

    @property
    def room(self) -> int | None:
        """Bytes of its own memory that this process may have, `overhead` included; None for the host's memory."""

    @property
    def in_use(self) -> int | None:
        """Bytes of its own memory that are taken now, by whomever; None for the host's memory."""

    def close(self) -> None:
        """Give it back; it opens again when needed."""


_MAGNITUDE, _HALF_INFINITY = np.uint16(0x7FFF), 0x7C00


class Runner(Protocol):
    """A component that can be called with arrays."""

    @property
    def name(self) -> str:
        """The component's name in the engine folder, for example `base/unet`."""

    @property
    def spec(self) -> ComponentSpec:
        """What it is for, what goes in and what comes out."""

    @property
    def device(self) -> Device:
        """What it shares with the engine's other runners."""

    @property
    def rows(self) -> int:
        """How many rows a call should have where there are as many: 2 takes both sides of guidance in one call."""

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Symbol of the spec → the lengths that it takes, where it was compiled for a range; others are free."""

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""

    def footprint(self, sizes: Sizes) -> Footprint:
        """What it takes in the pool that it computes in; known without loading anything."""

    def load(self) -> None:
        """Bring the weights into memory; a no-op if they are there. Every file's hash is checked before it is read."""

    def release(self) -> None:
        """Give the memory back; a no-op if nothing is loaded."""

    def leave_behind(self) -> None:
        """Forget what the process that this one was forked from has loaded, without touching it."""

    def hold(self, inputs: Values) -> Held:
        """Bring inputs that will not change to where the back end wants them, once for many calls."""

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once on `inputs` and what is `held`. Loads first if needed.

        Outputs are fresh host arrays that the caller owns; those named in `keep` may stay on the device until asked
        for, and are welcome in `hold` and `__call__` of the same engine's runners.
        """


@runtime_checkable
class Streams(Protocol):
    """A runner that can also do with less memory, and takes longer then.

    On a processor its weights stay on the disk and come piece by piece while it computes; what it gives is the same to
    the bit. On a card, and on OpenVINO, a decoder runs over bands of rows. The memory plan chooses.
    """

    def streamed(self, sizes: Sizes) -> Footprint | None:
        """What it takes then; None if it cannot: its engine was built without segments, or is no processor's."""

    def load_streamed(self) -> None:
        """Instead of `load`: get ready for that; a no-op if the runner is loaded in whichever way."""


@runtime_checkable
class Prepares(Protocol):
    """A runner that a machine can be prepared for, so that it is loaded sooner there; what it gives is the same."""

    def prepares(self) -> bool:
        """Whether there is anything to do: some back ends, and some kinds of components, gain nothing."""

    def prepare(self) -> "Preparation":
        """Write what is loaded sooner, unless it is there; later loads use it. See `engine.prepare`."""

    def forget_prepared(self) -> int:
        """Delete what was ever written by that, whatever for; bytes that were freed."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What preparing a component has done."""

    bytes: int
    """Of what was written; 0 if it was there."""
    seconds: float
    """That it took."""
    load_seconds: float
    """Of a load with it."""
    load_seconds_before: float | None = None
    """Of a load without it; None if it was there."""


class HostHeld:
    """Held inputs of a back end that takes them as they are."""

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs

    def release(self) -> None:
        """Drop them."""
        self.inputs = {}


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


def call(runner: Runner, inputs: Values, held: Held | None = None) -> dict[str, np.ndarray]:
    """Run once, with every output on the host."""
    return {name: np.asarray(value) for name, value in runner(inputs, held).items()}


def check_inputs(
    name: str, spec: ComponentSpec, inputs: Values, known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Hold `inputs` to the declared names, dtypes and shapes; return the length of every symbol.

    `known`: lengths of symbols from inputs that were checked before, which `spec` does not have any more.

    Raises `RequestError` that names the tensor, what it is and what it should be.
    """
    wanted = {t.name for t in spec.inputs}
    if wanted != set(inputs):
        missing, unknown = sorted(wanted - set(inputs)), sorted(set(inputs) - wanted)
        raise RequestError(f"{name}: missing inputs {missing}, unknown inputs {unknown}")
    sizes = dict(known or {})
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


def check_outputs(name: str, outputs: Values) -> None:
    """Raise `NumericError` for NaN or Inf in `outputs`.

    For all that goes on into another component: its integer kernels would make ordinary numbers of NaN, and a wrong
    picture of those.
    """
    for output, array in outputs.items():
        host = array if isinstance(array, np.ndarray) else np.asarray(array, array.stored)
        if not _finite(host):
            raise NumericError(
                f"{name} gave NaN or Inf ({output}); rebuild the engine with the fp32 recipe, or check the checkpoint"
            )


def _finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite. Of halves by their bits, which takes a quarter of the time: keys and values."""
    if array.dtype != np.float16 or not array.size:
        return bool(np.isfinite(array).all())
    magnitudes = np.ascontiguousarray(array).view(np.uint16) & _MAGNITUDE
    return int(magnitudes.max()) < _HALF_INFINITY
