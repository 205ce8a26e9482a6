"""The `rtx` targets: TensorRT for RTX engines in 16 bit, built on any machine, one row for each GPU generation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.errors import StorageError
from ....engine.runners.ort import MODEL_FILE
from ....engine.runners.tensorrt import ENGINE_FILE
from ...quantize.formats import FLOAT16, Format, Kind
from ...target import LIBRARIES, Lowered
from .builder import build_engine
from .profiles import dimensions

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

# GPU generations that TensorRT for RTX builds for (by its own list there is no SM90, so Hopper is not among them).
ARCHITECTURES = {
    "sm75": "Turing",
    "sm80": "A100",
    "sm86": "Ampere",
    "sm89": "Ada",
    "sm120": "Blackwell",
    "sm121": "GB10",
}


@dataclass(frozen=True, kw_only=True)
class RtxTarget:
    """TensorRT for RTX on one GPU generation."""

    name: str
    architecture: str
    runner: str = "tensorrt"
    dtype: str = "float16"
    runs_here: bool = False
    formats: Mapping[Kind, frozenset[Format]] = field(
        default_factory=lambda: {kind: frozenset({FLOAT16}) for kind in Kind}
    )
    pace: Mapping[Format, float] = field(default_factory=dict)
    default_recipe: str = "fp16"
    libraries: tuple[str, ...] = (*LIBRARIES, "tensorrt-rtx-cu12")

    def lower(
        self,
        component: str,
        spec: "ComponentSpec",
        model: "ir.Model",
        weights: "WeightSource",
        quantization: "Quantization",
        out: Path,
        aside: Path,
    ) -> Lowered:
        """See `Target.lower`; writes `model.engine`. The stand-in is the ONNX file that it is built from, as large.

        The builder names temporaries in an order that changes from run to run, so engines built twice from the same
        inputs are of equal size but differ in some bytes.
        """
        import onnx_ir as ir

        from ...graph.activations import activation_model
        from ...graph.master import attach

        activation = activation_model(component, model, spec)  # no pass follows
        attach(model, weights)
        inputs = {str(value.name): dimensions(value) for value in model.graph.inputs}
        onnx = aside / MODEL_FILE
        try:
            ir.save(model, onnx, external_data=f"{MODEL_FILE}.data")
            build_engine(component, onnx, inputs, self.architecture, out / ENGINE_FILE)
        except OSError as error:
            raise StorageError(
                f"cannot write {error.filename or out}: {error.strerror or error}; "
                "free some space or choose another folder"
            ) from error
        return Lowered(activation=activation, stand_in=onnx)


RTX_TARGETS = tuple(RtxTarget(name=f"rtx-{name}", architecture=name) for name in ARCHITECTURES)
