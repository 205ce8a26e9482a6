"""Who is measured: a row says which module runs it, with what settings, and what it needs to be here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from ..tiles import limited
from .cases import Case, Kind
from .inputs import Feeds
from .job import Model, Network

Call = Callable[[Feeds], np.ndarray]
ALL: Final[frozenset[Kind]] = frozenset({"unet", "vae", "picture"})
REFERENCE: Final = "diffusers-fp32"
"""Errors are told against its results."""


class Networks(Protocol):
    """A system that computes networks; pictures are then made of them by diffusers' own loop (`pictures`)."""

    text_dtype: str
    """The torch dtype that a picture's text encoders are run in, by torch."""

    def prepare(self, network: Network) -> None:
        """Leave on disk what `load` reads, if it is not there; in a process of its own, and not timed."""

    def load(self, network: Network, feeds: Feeds) -> Call:
        """Be ready for calls with inputs of the shapes of `feeds`."""


@runtime_checkable
class Pictures(Protocol):
    """A system that makes whole pictures by itself."""

    def picture(self, case: Case) -> tuple[np.ndarray, float]:
        """The picture `[h, w, 3]` in 0 to 1, and the seconds that loading took."""


class Keeps(Protocol):
    """One that keeps for the next process what it has compiled for a picture's size."""

    def forget(self) -> None:
        """Drop that."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One row. `needs`: modules that have to be installed. `module` has `open_system(model, **settings)`.

    `kinds`: what it can do, and `why` it cannot do the rest. `own_noise`: its pictures are others, and have no error.
    """

    name: str
    module: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    bfloat16: bool = False
    """Whether it computes in bfloat16, which a processor must have instructions for."""
    kinds: frozenset[Kind] = ALL
    why: str = ""
    own_noise: bool = False
    keeps: bool = False
    """Whether it is one of `Keeps`: then the first picture of a size is measured too."""

    def reason(self, case: Case | None = None) -> str | None:
        """Why it cannot be measured here, or not on this case; None: it can."""
        if case is not None:
            return None if case.kind in self.kinds else self.why
        missing = [name for name in self.needs if find_spec(name) is None]
        if missing:
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed (extra `bench`)"
        return "this processor has no bfloat16 instructions" if self.bfloat16 and not has_bfloat16() else None

    def open(self, model: Model) -> Any:
        """The module's system, for this model."""
        return import_module(self.module, __package__).open_system(model, **self.settings)


def has_bfloat16() -> bool:
    """Whether products of bfloat16 have instructions here that may be used, as far as Linux tells."""
    if limited():
        return False
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _ours(recipe: str) -> System:
    return System(
        name=f"pocketxl-{recipe}", module=".ours", settings={"recipe": recipe}, needs=("onnxruntime", "tokenizers")
    )


def _torch(
    name: str,
    *,
    needs: tuple[str, ...] = (),
    bfloat16: bool = False,
    kinds: frozenset[Kind] = ALL,
    why: str = "",
    **settings: Any,
) -> System:
    return System(
        name=name,
        module=".torch_modules",
        settings=settings,
        needs=("torch", "diffusers", *needs),
        bfloat16=bfloat16,
        kinds=kinds,
        why=why,
    )


def _openvino(name: str, precision: str, numbers: str = "float", *, needs: tuple[str, ...] = ()) -> System:
    settings = {"precision": precision, "numbers": numbers}
    return System(
        name=f"openvino-{name}",
        module=".openvino_models",
        settings=settings,
        needs=("torch", "diffusers", "openvino", *needs),
        bfloat16=precision == "bf16",
    )


SYSTEMS: Final = (
    _torch(REFERENCE),
    _ours("int8"),
    System(
        name="pocketxl-openvino-int8",
        module=".ours",
        settings={"recipe": "int8", "target": "openvino"},
        needs=("onnxruntime", "tokenizers", "openvino"),
        keeps=True,
    ),
    _ours("fp32"),
    _torch("diffusers-bf16", dtype="bfloat16", bfloat16=True),
    _torch(
        "sdnq-int8",
        change="sdnq",
        needs=("sdnq",),
        kinds=frozenset({"unet", "picture"}),
        why="sdnq quantizes the linear layers of U-Nets; its VAE is diffusers' own",
    ),
    _openvino("fp32", "f32"),
    _openvino("bf16", "bf16"),
    _openvino("int8-weight", "fastest", "int8-weight", needs=("nncf",)),
    _openvino("int8", "fastest", "int8", needs=("nncf",)),
    System(name="onnxruntime-fp32", module=".onnx_export", needs=("torch", "diffusers", "onnx", "onnxruntime")),
    System(
        name="stable-diffusion.cpp-q8_0",
        module=".stable_diffusion_cpp",
        needs=("cyllama", "safetensors"),
        kinds=frozenset({"picture"}),
        why="stable-diffusion.cpp has no call for one network",
        own_noise=True,
    ),
)
