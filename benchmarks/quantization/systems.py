"""Who is measured. Everything about a system follows from the runners that it opens for a case.

A new one is a row: a name and a function from a case to `Opened`. Formats of other targets come in here as runners over
torch modules whose layers compute in reference arithmetic.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pocketxl.engine.runners.base import Runner

from .cases import Case
from .torch_runner import TorchRunner, torch_runners


class AbsentError(Exception):
    """A system that cannot be measured here, and why."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A system on the weights of a case. `size_bytes`: of all weights as it stores them."""

    runners: Mapping[str, Runner]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class System:
    """A row. `open` raises `AbsentError`, or `QualityError` where a build refuses the weights."""

    name: str
    open: Callable[[Case], Opened]


def engine(recipe: str) -> System:
    """The engine that `pocketxl build` makes for this machine's processor with that recipe."""

    def open_engine(case: Case) -> Opened:
        pipe = case.fp32 if recipe == "fp32" else case.opened(recipe)
        folder = case.engine(recipe)
        files = [path for name in pipe.runners for path in (folder / name).iterdir()]
        return Opened(runners=pipe.runners, size_bytes=sum(p.stat().st_size for p in files if p.suffix != ".npz"))

    return System(name=f"pocketxl-{recipe}", open=open_engine)


def torch_float32() -> System:
    """The modules that peers are made from, untouched: what they would reach without loss."""

    def open_modules(case: Case) -> Opened:
        runners = torch_runners(case.components)
        return Opened(runners=runners, size_bytes=weight_bytes(runners))

    return System(name="torch-fp32", open=open_modules)


def weight_bytes(runners: Mapping[str, TorchRunner]) -> int:
    """Bytes of all parameters and buffers; quantized tensors count as the plain ones that they are made of."""
    return sum(
        _bytes(tensor)
        for runner in runners.values()
        for tensor in (*runner.module.parameters(), *runner.module.buffers())
    )


def _bytes(tensor: object) -> int:
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return tensor.numel() * tensor.element_size()  # type: ignore[attr-defined,no-any-return]
    return sum(_bytes(getattr(tensor, name)) for name in flatten()[0])
