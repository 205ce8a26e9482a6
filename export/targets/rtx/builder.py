"""TensorRT's builders: an ONNX file → an engine.

That of TensorRT for RTX builds for one or several GPU generations, with or without a GPU. That of TensorRT times
kernels on the GPU at hand and builds for it alone; which attention it has fused kernels for was not seen, so it may
compose any.

Traps, found by trying (TensorRT for RTX 1.7.1): networks are strongly typed only; a timing cache or the REFIT and
STRIP_PLAN flags make the builder ask for a GPU; deserialising an engine needs one too. Weights are read from maps
(`mapped`), and the builder takes twice their bytes beside them, at its end. A progress monitor is of no use: nearly
the whole build is one step of it, and a build that it cancels ends only after that step (so it runs in a process of
its own, see `process`). Building for Windows asks for an NVIDIA driver: without one `runtime_platform` is refused with
an error in the log alone ("does not support building engines on platforms other than Linux x86_64 when the runtime
platform is set to Windows x86_64"), and the engine is one for Linux. The flag WEIGHT_STREAMING is left out: by
NVIDIA's guide it excludes CUDA graphs and weights that are taken off the GPU between phases, and the recipe
`int8-weight` needs half the memory anyway.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....engine.errors import IncompatibleError
from ....engine.runners.tensorrt_library import RTX, TENSORRT_LIBRARIES, error_log, import_tensorrt
from .heads import FUSED_HEADS
from .mapped import mapped
from .profiles import Profile
from .rounded_shares import round_shares


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be built: an ONNX file, for these architectures (`sm89`), with its inputs' profiles, and where to.

    `library`: by its key in `TENSORRT_LIBRARIES`; for TensorRT's there are no architectures but the GPU's own.
    """

    component: str
    onnx: Path
    profiles: Mapping[str, Profile]
    architectures: tuple[str, ...]
    engine: Path
    library: str = RTX.extra


def build_engine(order: Order) -> None:
    """Build it.

    Raises `IncompatibleError` that names the first node that cannot be translated, and `OSError` when the file cannot
    be written.
    """
    library = TENSORRT_LIBRARIES[order.library]
    trt = import_tensorrt(library)
    log = error_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    with mapped(parser, order.onnx) if library is RTX else nullcontext(parser.parse_from_file(str(order.onnx))) as read:
        if not read:
            raise IncompatibleError(f"{order.component}: {_parser_error(parser, library.name)}")
        _allow_decomposition(trt, network, always=library is not RTX)
        _compile(trt, builder, network, order, log)


def _compile(trt: Any, builder: Any, network: Any, order: Order, log: Any) -> None:
    library = TENSORRT_LIBRARIES[order.library]
    config = builder.create_builder_config()
    if library is RTX:
        config.num_compute_capabilities = len(order.architectures)
        for index, architecture in enumerate(order.architectures):
            config.set_compute_capability(getattr(trt.ComputeCapability, architecture.upper()), index)
    else:  # or activation memory is that of the profile's end whatever runs
        config.set_preview_feature(trt.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10, True)
    sizes = builder.create_optimization_profile()
    for name, shapes in order.profiles.items():
        sizes.set_shape(name, *shapes)
    config.add_optimization_profile(sizes)
    with order.engine.open("wb") as file:
        writer = _writer(trt, file)
        built = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.failure is not None:
        raise writer.failure
    if not built:
        raise IncompatibleError(
            f"{order.component}: {library.name} cannot build it for {', '.join(order.architectures) or 'this GPU'}: "
            f"{log.summary()}"
        )


def _allow_decomposition(trt: Any, network: Any, *, always: bool) -> None:
    """Let attention with heads that no fused kernel takes be built of matrix products; refuse it for others."""
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the bindings' way to cast, as in NVIDIA's own samples
            query = layer.attention.get_input(0)
            half = query.dtype == trt.DataType.HALF
            layer.attention.decomposable = always or not half or int(query.shape[-1]) not in FUSED_HEADS
            if not always:  # only TensorRT for RTX is asked for 8-bit shares
                round_shares(trt, network, layer)


def _parser_error(parser: Any, library: str) -> str:
    if not parser.num_errors:
        return f"{library} cannot read the ONNX file and does not say why"
    error = parser.get_error(0)
    more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    where = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_name() else "the ONNX file"
    return f"{library} cannot translate {where}: {' '.join(error.desc().split())[:300]}{more}"


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
