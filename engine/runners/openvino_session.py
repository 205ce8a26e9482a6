"""OpenVINO's own side of a component: a model compiled for the sizes of the call at hand, and what its errors mean.

For one set of sizes it lays out all memory beforehand and picks kernels for them. A model with sizes left open took
up to 1.5 times as long at 1024 × 1024, and its first call at a new size as long as compiling.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from ..ending import Ended
from ..errors import IncompatibleError, IntegrityError, MemoryBudgetError, PocketXLError
from ..install import needing
from ..specs import Arrays, ComponentSpec
from .mapped import without_pages
from .openvino_kept import WITHOUT_WEIGHTS, KeptModel
from .openvino_parts import Compiled, Part, Request, compiled, cut, limits, parts_for
from .ort import DATA_FILE
from .ort_session import lacks_memory
from .processor import forbids_bfloat16, lacks_vnni, multiplies_in_tiles

Shapes = Mapping[str, tuple[int, ...]]

# Threads are not tied to cores: two pipelines in two processes would be tied to the same ones.
SETTINGS: Mapping[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
_TYPES = {"float32": "f32", "float16": "f16", "int64": "i64"}


def import_openvino() -> Any:
    """OpenVINO, or an `IncompatibleError` that says how to install it."""
    with needing("openvino", "target openvino", "openvino"):
        import openvino
    return openvino


def unsuited_processor() -> str | None:
    """Why this processor is not for 8-bit products by OpenVINO, and the fix; None: it is, or does not tell."""
    if not lacks_vnni():
        return None
    return (
        "engines for openvino are for x86-64 processors with VNNI (AVX-VNNI, AVX512-VNNI, AMX), and this one has none: "
        "8-bit products would be added up in 16 bits, which may overflow; build with --target cpu"
    )


def openvino_error(error: Exception, component: str, model: Path, deed: str) -> PocketXLError:
    """What an error of OpenVINO's means; `deed`: what it was to do with the file `model`."""
    if lacks_memory(error):
        return MemoryBudgetError(
            f"{component}: the machine has not enough memory to {deed} it; close other programs, make a smaller "
            "picture, or see with `pocketxl plan` what one needs"
        )
    version = import_openvino().__version__
    reason = str(error).strip().splitlines()
    return IncompatibleError(
        f"{component}: OpenVINO {version} cannot {deed} {model}: {reason[-1] if reason else repr(error)}. "
        "Rebuild the engine with this version, or install the version that engine.json names"
    )


class OpenVinoSession:
    """A model on the processor. Several threads may call it; calls of one size run one after another."""

    def __init__(
        self, name: str, spec: ComponentSpec, model: Path, threads: int, *, exact: bool, digests: Sequence[str] | None
    ) -> None:
        """Its files must have been checked; they are read when sizes are known.

        `exact`: floats are computed in float32, also where the processor is faster in bfloat16. `digests`: the files',
        if what is compiled of them may be kept beside them. Raises `IncompatibleError`.
        """
        self.name = name
        self.spec = spec
        self._model = model
        self._digests = digests
        self._settings = {**SETTINGS, **WITHOUT_WEIGHTS, "INFERENCE_NUM_THREADS": threads}
        if exact or forbids_bfloat16():  # OpenVINO would choose it without asking oneDNN
            self._settings["INFERENCE_PRECISION_HINT"] = "f32"
        self._core = import_openvino().Core()
        if not exact and (unsuited := unsuited_processor()) is not None:
            raise IncompatibleError(f"{name}: {unsuited}")
        self._compiled: tuple[Shapes, Compiled] | None = None
        self._lock = Lock()

    def request(self, shapes: Shapes) -> Request:
        """What runs once with inputs of these shapes. Compiles if they are others than the last ones.

        Raises `IncompatibleError`, `IntegrityError` and `MemoryBudgetError`.
        """
        with self._lock:
            if self._compiled is None or self._compiled[0] != shapes:
                self._compiled = None  # two at once would take twice the memory
                self._compiled = (dict(shapes), self._compile(shapes))
            return self._compiled[1].request()

    def run(self, request: Request, inputs: Arrays) -> Arrays:
        """The outputs of one call. Raises `Ended` if it was stopped between two parts."""
        try:
            return request.run(inputs, [tensor.name for tensor in self.spec.outputs])
        except Ended:
            raise
        except Exception as error:
            raise openvino_error(error, self.name, self._model, "run") from error

    def _read(self) -> Any:
        try:
            return self._core.read_model(self._model)
        except Exception as error:
            raise openvino_error(error, self.name, self._model, "load") from error

    def _compile(self, shapes: Shapes) -> Compiled:
        weights = self._model.with_name(DATA_FILE)
        with without_pages(weights):
            if self._digests is None:
                return Compiled(self._compiled_parts(shapes))
            kept = KeptModel(self._model, weights, self._good_for(shapes))
            parts = kept.opened(self._core, self._settings)
            if parts is None:
                parts = self._compiled_parts(shapes)
                kept.keep(parts)
            return Compiled(parts)

    def _compiled_parts(self, shapes: Shapes) -> tuple[Part, ...]:
        model = self._read()
        self._check_edge(model)
        compile = partial(self._core.compile_model, device_name="CPU", config=self._settings)
        try:
            model.reshape({name: list(shape) for name, shape in shapes.items()})
            return compiled(cut(model, parts_for(model)), compile)
        except Exception as error:
            raise openvino_error(error, self.name, self._model, "compile") from error

    def _good_for(self, shapes: Shapes) -> str:
        """All that a compiled model depends on."""
        processor = [self._core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        machine = (import_openvino().__version__, processor, multiplies_in_tiles())
        facts = (self.spec, limits(), sorted(self._settings.items()), self._digests, sorted(shapes.items()))
        return repr((machine, *facts))

    def _check_edge(self, model: Any) -> None:
        for side, ports, tensors in (
            ("inputs", model.inputs, self.spec.inputs),
            ("outputs", model.outputs, self.spec.outputs),
        ):
            found = {name: port for port in ports for name in port.get_names()}
            odd = [
                tensor.name
                for tensor in tensors
                if tensor.name not in found
                or found[tensor.name].get_element_type().get_type_name() != _TYPES.get(tensor.dtype)
                or len(found[tensor.name].get_partial_shape()) != len(tensor.shape)
            ]
            if odd or len(ports) != len(tensors):
                raise IntegrityError(
                    f"{self.name}: engine.json and the model disagree on the {side} {', '.join(odd[:3])}; "
                    "build the engine again with `pocketxl build`, or copy the folder again"
                )
