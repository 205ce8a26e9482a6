"""ONNX Runtime's own quantization of our float graphs, as its documentation has it: the U-Nets, the rest in floats."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine.runners.base import Device, Footprint, Held, HostHeld, Range, Runner, Sizes, Value, Values
from pocketxl.engine.runners.ort import MODEL_FILE
from pocketxl.engine.specs import ComponentSpec, Role

from .cases import Case
from .samples import Inputs
from .systems import AbsentError, Opened, System

Quantize = Callable[[Path, Path, list[Inputs]], None]


@dataclass(kw_only=True)
class SessionRunner:
    """An ONNX file with an edge like the component's."""

    name: str
    spec: ComponentSpec
    device: Device
    session: Any
    rows: int = 1
    ranges: Mapping[str, Range] = field(default_factory=dict)
    loaded: bool = True

    def footprint(self, sizes: Sizes) -> Footprint:
        """Nothing: without a budget a plan decides nothing."""
        return Footprint(pool="host", weights=0, working=0)

    def load(self) -> None:
        """It is loaded."""

    def release(self) -> None:
        """It stays."""

    def leave_behind(self) -> None:
        """Nothing is kept for a fork."""

    def hold(self, inputs: Values) -> Held:
        """The arrays themselves."""
        return HostHeld({name: np.asarray(value) for name, value in inputs.items()})

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`."""
        feeds = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        if isinstance(held, HostHeld):
            feeds |= held.inputs
        outputs = [tensor.name for tensor in self.spec.outputs]
        return dict(zip(outputs, self.session.run(outputs, feeds), strict=True))


def static(source: Path, destination: Path, samples: list[Inputs]) -> None:
    """`quantize_static`: uint8 activations by the extremes of the samples, int8 weights per output channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Inputs] = iter(samples)

        def get_next(self) -> Inputs | None:
            return next(self.left, None)

    quantize_static(
        source, destination, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
    )  # fmt: skip


def dynamic(source: Path, destination: Path, samples: list[Inputs]) -> None:
    """`quantize_dynamic`: linear layers by the range of each call, int8 weights per output channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source, destination, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
    )


PEERS: dict[str, Quantize] = {"ort-quantize-static": static, "ort-quantize-dynamic": dynamic}


def ort_peers() -> Iterable[System]:
    """A system for each row."""
    return [System(name=name, open=_open(name, quantize)) for name, quantize in PEERS.items()]


def _open(system: str, quantize: Quantize) -> Callable[[Case], Opened]:
    def open_peer(case: Case) -> Opened:
        try:
            import onnx  # noqa: F401 - ONNX Runtime's quantization needs it
            import onnxruntime as ort
        except ImportError as error:
            raise AbsentError(f"{error.name} is not installed") from error
        folder = case.engine("fp32")
        runners: dict[str, Runner] = dict(case.fp32.runners)
        size = 0
        for name, runner in runners.items():
            where = folder / name
            if runner.spec.role is Role.UNET:
                where = case.work / system / name
                where.mkdir(parents=True, exist_ok=True)
                samples = [one for calls in case.samples.inputs[name].values() for one in calls]
                quantize(folder / name / MODEL_FILE, where / MODEL_FILE, samples)
                options = ort.SessionOptions()
                options.log_severity_level = 3
                if case.settings.threads:
                    options.intra_op_num_threads = case.settings.threads
                session = ort.InferenceSession(where / MODEL_FILE, options, providers=["CPUExecutionProvider"])
                runners[name] = SessionRunner(name=name, spec=runner.spec, device=runner.device, session=session)
            size += sum(path.stat().st_size for path in where.iterdir() if path.suffix != ".npz")
        return Opened(runners=runners, size_bytes=size)

    return open_peer
