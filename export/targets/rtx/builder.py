"""TensorRT for RTX's builder: an ONNX file → an engine for one GPU generation, with or without a GPU.

Traps, found by trying (TensorRT for RTX 1.7.1): networks are strongly typed only; a timing cache or the REFIT and
STRIP_PLAN flags make the builder ask for a GPU; deserialising an engine needs one too, so nothing here looks into it.
"""

from pathlib import Path
from typing import Any

from ....engine.errors import IncompatibleError
from ....engine.runners.tensorrt import import_tensorrt
from ....engine.specs import Dim
from .profiles import profile


def build_engine(
    component: str, onnx: Path, inputs: dict[str, tuple[Dim, ...]], architecture: str, engine: Path
) -> None:
    """Build `engine` from the ONNX file for one architecture (`sm89`); the inputs' symbols take their `RANGES`.

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
    sizes = builder.create_optimization_profile()
    for name, shape in inputs.items():
        sizes.set_shape(name, *profile(component, name, shape))
    config.add_optimization_profile(sizes)
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
