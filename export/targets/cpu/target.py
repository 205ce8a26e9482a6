"""The `cpu` target: an ONNX file for ONNX Runtime's CPU provider, weights beside it as external data."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.errors import IncompatibleError, StorageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...graph.master import WeightSource
    from ...quantize.recipes import Recipe
    from ...reference.calibrate import Calibration

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
# Weights start on page boundaries, so that the runtime maps each of them without a copy.
ALIGNMENT = 4096
ALIGN_FROM_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class CpuTarget:
    """ONNX Runtime on any x86-64 or Arm processor."""

    name: str = "cpu"
    runner: str = "ort"
    dtype: str = "float32"
    runs_here: bool = True
    recipes: tuple[str, ...] = ("fp32", "int8", "int8-weight")

    def lower(
        self,
        component: str,
        model: "ir.Model",
        weights: "WeightSource",
        recipe: "Recipe",
        calibration: "Calibration | None",
        out: Path,
    ) -> list[Path]:
        """See `Target.lower`; writes `model.onnx` and `model.onnx.data`. Memory: the graph and one layer at a time."""
        import onnx_ir as ir

        from ...graph.master import attach

        if recipe.name not in self.recipes:
            raise IncompatibleError(
                f"target {self.name} has no recipe {recipe.name!r}: choose one of {', '.join(self.recipes)}"
            )
        attach(model, weights)
        rewrite(component, model, recipe, calibration)
        path = out / MODEL_FILE
        try:
            ir.save(model, path, external_data=DATA_FILE, alignment=ALIGNMENT, align_threshold=ALIGN_FROM_BYTES)
        except OSError as error:
            raise StorageError(
                f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
            ) from error
        data = out / DATA_FILE
        return [path, data] if data.exists() else [path]


def rewrite(component: str, model: "ir.Model", recipe: "Recipe", calibration: "Calibration | None") -> None:
    """The passes, in their order: formats first, while layers still look as the master wrote them, then fusions."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from ...graph.fold_transpose import fold_transpose
    from ...graph.layers import MICROSOFT, MICROSOFT_VERSION
    from ...graph.split_linear import split_linear
    from .attention_mha import attention_mha
    from .conv_int8 import conv_int8
    from .linear_int8 import linear_int8
    from .silu import silu
    from .weight_only import weight_only

    graph = model.graph
    graph.opset_imports[MICROSOFT] = MICROSOFT_VERSION
    split_linear(graph)
    linear_int8(graph, recipe, component)
    conv_int8(graph, recipe, component, calibration)
    weight_only(graph, recipe, component)
    RemoveUnusedNodesPass()(model)  # transposes of weights that are quantized by now
    fold_transpose(graph)
    silu(graph)
    attention_mha(graph)
    RemoveUnusedNodesPass()(model)
