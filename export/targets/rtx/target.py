"""The `rtx` targets: TensorRT for RTX engines in 16 bit, built on any machine, with or without a GPU.

Traps, found by trying (TensorRT for RTX 1.7.1): networks are strongly typed only; a timing cache or the REFIT and
STRIP_PLAN flags make the builder ask for a GPU; deserialising an engine needs one too, so nothing here looks into it.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....engine.errors import IncompatibleError, StorageError
from ....engine.specs import Dim

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...graph.master import WeightSource
    from ...quantize.recipes import Recipe
    from ...reference.calibrate import Calibration

ENGINE_FILE = "model.engine"

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
class Range:
    """What a dimension may be at run time; kernels are chosen for `best`."""

    least: int
    best: int
    most: int


# By the symbols of `engine.specs`; the picture's size follows from the latents'.
RANGES = {
    "batch": Range(least=1, best=2, most=8),
    "tokens": Range(least=77, best=77, most=4 * 77),
    "steps": Range(least=1, best=30, most=1000),
    "height": Range(least=8, best=128, most=256),
    "width": Range(least=8, best=128, most=256),
}


@dataclass(frozen=True, kw_only=True)
class RtxTarget:
    """TensorRT for RTX on one GPU generation."""

    name: str
    architecture: str
    runner: str = "tensorrt"
    dtype: str = "float16"
    runs_here: bool = False
    recipes: tuple[str, ...] = field(default=("fp16",))

    def lower(
        self,
        component: str,
        model: "ir.Model",
        weights: "WeightSource",
        recipe: "Recipe",
        calibration: "Calibration | None",
        out: Path,
    ) -> list[Path]:
        """See `Target.lower`; writes `model.engine`. For a while the folder also holds the ONNX form, as large again.

        The builder names temporaries in an order that changes from run to run, so engines built twice from the same
        inputs are of equal size but differ in some bytes.
        """
        import onnx_ir as ir

        from ...graph.master import attach

        if recipe.name not in self.recipes:
            raise IncompatibleError(
                f"target {self.name} has no recipe {recipe.name!r}: choose one of {', '.join(self.recipes)}"
            )
        attach(model, weights)
        inputs = {str(value.name): _dimensions(value) for value in model.graph.inputs}
        between = out / "onnx"
        between.mkdir()
        try:
            ir.save(model, between / "model.onnx", external_data="model.onnx.data")
            build_engine(component, between / "model.onnx", inputs, self.architecture, out / ENGINE_FILE)
        except OSError as error:
            raise StorageError(
                f"cannot write {error.filename or out}: {error.strerror or error}; "
                "free some space or choose another folder"
            ) from error
        finally:
            shutil.rmtree(between, ignore_errors=True)
        return [out / ENGINE_FILE]


RTX_TARGETS = tuple(RtxTarget(name=f"rtx-{name}", architecture=name) for name in ARCHITECTURES)


def build_engine(
    component: str, onnx: Path, inputs: dict[str, tuple[Dim, ...]], architecture: str, engine: Path
) -> None:
    """Build `engine` from the ONNX file for one of `ARCHITECTURES`; the inputs' symbols take their `RANGES`.

    Raises `IncompatibleError` that names the first node that cannot be translated, and `StorageError` or `OSError` when
    the file cannot be written.
    """
    trt = import_tensorrt()
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        raise IncompatibleError(f"{component}: {_parser_error(parser)}")
    _allow_decomposition(trt, network)
    config = builder.create_builder_config()
    # Lets the runtime keep only part of the weights on the GPU; costs nothing where it is not used.
    config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, architecture.upper()), 0)
    profile = builder.create_optimization_profile()
    for name, shape in inputs.items():
        profile.set_shape(name, *_profile(component, name, shape))
    config.add_optimization_profile(profile)
    with engine.open("wb") as file:
        writer = _writer(trt, file)
        built = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.failure is not None:
        raise writer.failure
    if not built:
        raise IncompatibleError(f"{component}: TensorRT for RTX cannot build it for {architecture}: {log.summary()}")


def _allow_decomposition(trt: Any, network: Any) -> None:
    """Let attention without a dedicated kernel (in float32, or with odd heads) be built of matrix products.

    Without this the builder refuses such an attention.
    """
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the bindings' way to cast, as in NVIDIA's own samples
            layer.attention.decomposable = True


def import_tensorrt() -> Any:
    """The `tensorrt_rtx` package, or an `IncompatibleError` that says how to install it."""
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        raise IncompatibleError(
            f"TensorRT for RTX is not here ({error}); install it with: pip install 'pocketxl[rtx]'"
        ) from error
    return tensorrt_rtx


def _dimensions(value: "ir.Value") -> tuple[Dim, ...]:
    assert value.shape is not None, f"input {value.name} has no shape"
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)


def _profile(component: str, name: str, shape: tuple[Dim, ...]) -> list[tuple[int, ...]]:
    """Least, best and most shape of one input."""
    unknown = [dim for dim in shape if isinstance(dim, str) and dim not in RANGES]
    if unknown:
        raise IncompatibleError(
            f"{component}: input {name} has the dimensions {unknown}, ranges are known for {list(RANGES)}"
        )
    ranges = [RANGES[d] if isinstance(d, str) else Range(least=d, best=d, most=d) for d in shape]
    return [tuple(r.least for r in ranges), tuple(r.best for r in ranges), tuple(r.most for r in ranges)]


def _parser_error(parser: Any) -> str:
    if not parser.num_errors:
        return "TensorRT for RTX cannot read the ONNX file and does not say why"
    error = parser.get_error(0)
    more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    where = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_name() else "the ONNX file"
    return f"TensorRT for RTX cannot translate {where}: {' '.join(error.desc().split())[:300]}{more}"


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors for our own message, and prints nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (self.ERROR, self.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def summary(self) -> str:
            return "; ".join(self.errors[-3:])[:500] or "it does not say why"

    return Log()


def _writer(trt: Any, file: Any) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        """Takes the engine piece by piece, so that it never lies in memory whole."""

        def __init__(self) -> None:
            super().__init__()
            self.failure: OSError | None = None

        def write(self, data: bytes) -> int:
            try:
                return int(file.write(data))
            except OSError as error:  # must not cross TensorRT's own code
                self.failure = error
                return -1

    return Writer()
