"""What a target is: it says what it can do, and turns the ONNX master of a component into the files of one runner."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..engine.errors import RequestError
from ..engine.folder.manifest import ActivationModel, Streaming
from ..engine.folder.openings import Openings
from .quantize.formats import Format, Kind

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..engine.specs import ComponentSpec, Role
    from .graph.master import WeightSource
    from .quantize.quantization import Quantization
    from .quantize.recipes import Instead, Recipe

LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "optimum-quanto", "onnxruntime", "numpy")
"""The distributions that every build depends on."""


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """What lowering made beside the component's files."""

    activation: ActivationModel
    """Working memory of a call."""
    runner: str = ""
    """The kind of runner that runs it; the target's own if empty."""
    int8_bytes: int = 0
    exact_threads: int | None = None
    streaming: Streaming | None = None
    """See `ComponentEntry`."""
    openings: Openings | None = None
    """See `ComponentEntry`; `Lowering` adds the file of factors."""
    architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """See `ComponentEntry`."""
    ranges: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """See `ComponentEntry`."""
    stand_in: Path | None = None
    """Where this machine cannot run the files: the same component as ONNX for ONNX Runtime's CPU provider."""


FACTS = tuple(field.name for field in fields(Lowered) if field.name != "stand_in")
"""Of `Lowered`, what goes into the manifest as it is; a `ComponentEntry` has them under the same names."""


FOUND = ("quality", "formats", "more_bits", "halvings")
"""What measuring found out about it; likewise."""


def quiet(text: str) -> None:
    """Tell nobody."""


class Target(Protocol):
    """One row of the targets' table."""

    @property
    def name(self) -> str:
        """What `--target` takes."""

    @property
    def described(self) -> str:
        """The name, and what a build has asked for beyond it: what the build key has of it."""

    def sized(self, largest: int) -> "Target":
        """The same for pictures of up to `largest` pixels a side.

        Raises `RequestError` where engines take every size anyway.
        """

    @property
    def runner(self) -> str:
        """The kind of runner that runs the files: `ort`, `tensorrt` or `cuda`."""

    @property
    def dtype(self) -> str:
        """The dtype that the master should be exported in: float32 or float16."""

    @property
    def runs_here(self) -> bool:
        """True if this machine can run what it builds, so that the gate can hold the files to the reference."""

    @property
    def reading(self) -> float:
        """The share of the time of `lower` that passes while weights are read; the rest is a compiler's."""

    @property
    def formats(self) -> Mapping[Kind, frozenset[Format]]:
        """What it can do with each kind of layer."""

    @property
    def instead(self) -> "Instead":
        """What it does in place of a format that a recipe may ask for: as many bits, rounded as its kernels want it."""

    @property
    def pace(self) -> Mapping[Format, float]:
        """Seconds that a product takes in a format, relative to each other; 1 where it is not listed."""

    @property
    def default_recipe(self) -> str:
        """The recipe of a build that names none."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """The distributions that shape what it builds."""

    def files(self, recipe: "Recipe") -> "tuple[Recipe, ...]":
        """What each file of a component's weights is made by: the recipe, where there is one file for all machines."""

    def suited(self, recipe: "Recipe", configuration: object) -> "Recipe":
        """The recipe for a component of that configuration: itself, unless more layers in 8 bits pay there."""

    def machine(self) -> Mapping[str, str]:
        """What of this machine decides what it builds, for the build key; empty where every machine builds the same.

        Asked before anything else is done. Raises `IncompatibleError` where it cannot build here.
        """

    def of(self, role: "Role") -> "Target":
        """What makes the components of that role: itself, or another where it leaves them to the processor."""

    def lower(
        self,
        component: str,
        spec: "ComponentSpec",
        model: "ir.Model",
        weights: "WeightSource",
        quantization: "Quantization",
        out: Path,
        aside: Path,
        tell: Callable[[str], None] = quiet,
    ) -> Lowered:
        """Write the component's files into the folder `out`, and a stand-in into `aside` (both exist and are empty).

        `model` is the master without data, and is used up. Weights are read one at a time. The same inputs give the
        same bytes, unless the back end's own builder does not. The formats are those that `check` lets pass;
        `component` is for messages; `tell` hears what is being done while no weights are read. Raises
        `IncompatibleError` for a graph that the target cannot do and `StorageError` when writing fails.
        """


class AnySize:
    """Of a target whose engines take pictures of every size, and are the same wherever they are built."""

    name: str

    def files(self, recipe: "Recipe") -> "tuple[Recipe, ...]":
        """See `Target`: one, by the recipe."""
        return (recipe,)

    def suited(self, recipe: "Recipe", configuration: object) -> "Recipe":
        """See `Target`: as it is."""
        return recipe

    def machine(self) -> Mapping[str, str]:
        """See `Target`: nothing."""
        return {}

    @property
    def described(self) -> str:
        """See `Target`."""
        return self.name

    def sized(self, largest: int) -> "Target":
        """See `Target`."""
        raise RequestError(
            f"engines for {self.name} take pictures of every size, so there is no largest one ({largest}) to be asked "
            "for; leave it out"
        )
