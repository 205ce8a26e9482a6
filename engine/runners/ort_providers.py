"""ONNX Runtime's providers, that is what computes a graph: a row each, and which of them an engine is given to.

No row but the processor's has run on its hardware yet; OpenVINO's has on a processor. What the rows say is from ONNX
Runtime's documents and source.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import IncompatibleError, RequestError
from ..install import install_advice
from ..request.limits import show
from .base import Pool
from .ort_session import import_onnxruntime

HALF, FLOAT = "wf16", "wf32"
"""The formats of layers in floats, as a manifest has them (`export.quantize.formats`)."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One way to compute: `name` is what callers say, `identifier` is ONNX Runtime's."""

    name: str
    identifier: str
    extra: str
    """Of our package, that brings it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What the provider is told, in its own words."""
    plug_in: str = ""
    """The module that brings it where it is no part of ONNX Runtime's own package."""
    pool: Pool = "device"
    memory: str = ""
    """What ONNX Runtime calls its memory; inputs that are held are brought there once. Empty: it takes the host's."""
    arenas: str = "cpu:0"
    """What can be shrunk after a run."""
    patterns: bool = True
    """Whether it can have its memory planned by what a first run took."""

    @property
    def processor(self) -> bool:
        """Whether this is ONNX Runtime's own code for processors."""
        return self.identifier == _PROCESSOR


_PROCESSOR = "CPUExecutionProvider"
CPU = Provider(name="cpu", identifier=_PROCESSOR, extra="cpu", pool="host")
PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            name="cuda",
            identifier="CUDAExecutionProvider",
            extra="ort-cuda",
            # By default memory grows by doubling, and every algorithm of a convolution is tried at every new size.
            options={"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"},
            memory="cuda",
            arenas="cpu:0;gpu:0",
        ),
        # Documented: neither memory patterns nor calls side by side.
        Provider(
            name="directml", identifier="DmlExecutionProvider", extra="ort-directml", memory="dml", patterns=False
        ),
        Provider(
            name="tensorrt-rtx",
            identifier="NvTensorRTRTXExecutionProvider",
            extra="ort-tensorrt-rtx",
            plug_in="onnxruntime_ep_nv_tensorrt_rtx",
        ),
        Provider(
            name="openvino",
            identifier="OpenVINOExecutionProvider",
            extra="ort-openvino",
            plug_in="onnxruntime_ep_openvino",
            pool="host",  # Intel's graphics shares the machine's memory
        ),
        CPU,
    )
}
"""In the order in which they are chosen where none is asked for. Plug-ins are only taken when they are."""


def computes(provider: Provider, formats: Collection[str]) -> bool:
    """Whether layers of these formats are among what it computes: 8-bit and 4-bit ones are for processors."""
    return provider.processor or set(formats) <= {HALF, FLOAT}


def choose_provider(asked: str | None, formats: Iterable[str]) -> Provider:
    """What computes an engine whose layers have these formats (see `ComponentEntry.formats`).

    None: the first that ONNX Runtime has, for an engine in half precision; others are made for processors. Raises
    `RequestError` for a name that there is not, and for 8-bit or 4-bit layers off the processor; `IncompatibleError`
    with the fix where what is asked for is not here.
    """
    if asked is not None and asked not in PROVIDERS:
        raise RequestError(f"provider is {show(asked)}; choose {', '.join(PROVIDERS)}")
    formats = set(formats)
    if asked == CPU.name or (asked is None and formats != {HALF}):
        return CPU
    if asked is not None:
        if not computes(PROVIDERS[asked], formats):
            quantized = sorted(formats - {HALF, FLOAT})
            raise RequestError(
                f"provider is {asked}, but this engine has layers in {', '.join(quantized)}, which ONNX Runtime only "
                "computes on processors; use provider cpu, or build an engine for GPUs with --target onnx-fp16"
            )
        return _found(PROVIDERS[asked])
    here = _available()
    return next(provider for provider in PROVIDERS.values() if provider.identifier in here)


def _found(provider: Provider) -> Provider:
    """The provider itself, if it is here."""
    if provider.plug_in:
        from importlib.util import find_spec

        here = find_spec(provider.plug_in) is not None
    else:
        here = provider.identifier in _available()
    if not here:
        names = [row.name for row in PROVIDERS.values() if row.identifier in _available()]
        raise IncompatibleError(
            f"provider {provider.name} is not here (there is {', '.join(names)}); {_advice(provider)}"
        )
    return provider


def _advice(provider: Provider) -> str:
    install = install_advice(provider.extra)
    if provider.plug_in:
        return install
    return (
        "ONNX Runtime is one package for each kind of GPU, of which only one can be there: remove what is there "
        f"(pip uninstall onnxruntime), then {install}"
    )


def _available() -> Collection[str]:
    available: Collection[str] = import_onnxruntime().get_available_providers()
    return available
