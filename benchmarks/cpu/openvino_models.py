"""OpenVINO: diffusers' modules converted, in floats or with NNCF's int8.

Where the checkpoint is in float16, constants are stored in it, as OpenVINO does unless told otherwise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from .inputs import Feeds, unet_feeds, vae_feeds
from .job import Model, Network
from .systems import Call, has_bfloat16

CALIBRATION: Final = 4
"""Samples that NNCF takes ranges from; never those that are measured."""
CALIBRATION_SIZE: Final = 512
Numbers = Literal["float", "int8-weight", "int8"]


@dataclass(frozen=True, kw_only=True)
class OpenVino:
    """Models of static shapes on the processor, for latency. `precision`: what floats are computed in."""

    model: Model
    precision: str
    numbers: Numbers

    @property
    def text_dtype(self) -> str:
        """Text encoders stay in torch."""
        return "bfloat16" if self._hint == "bf16" else "float32"

    def prepare(self, network: Network) -> None:
        """Convert, and quantize."""
        import openvino as ov

        source, made = self._file("float", network), self._file(self.numbers, network)
        if not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            _convert(self.model, network, self._samples(network)[0], source)
        if made.exists():
            return
        made.parent.mkdir(parents=True, exist_ok=True)
        quantized = _quantized(ov.Core().read_model(source), self.numbers, self._samples(network))
        ov.save_model(quantized, made, compress_to_fp16=False)

    def load(self, network: Network, feeds: Feeds) -> Call:
        """Read, give it its shapes, compile."""
        import openvino as ov

        core = ov.Core()
        model = core.read_model(self._file(self.numbers, network))
        model.reshape({name: list(array.shape) for name, array in feeds.items()})
        settings = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "INFERENCE_NUM_THREADS": self.model.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(model, "CPU", settings)
        del model

        def call(feeds: Feeds) -> np.ndarray:
            return np.asarray(compiled(feeds)[0])

        return call

    @property
    def _hint(self) -> str:
        return ("bf16" if has_bfloat16() else "f32") if self.precision == "fastest" else self.precision

    def _file(self, numbers: Numbers, network: Network) -> Path:
        return self.model.work / f"openvino-{numbers}" / f"{network}.xml"

    def _samples(self, network: Network) -> list[Feeds]:
        size, seeds = CALIBRATION_SIZE // self.model.scale, range(1000, 1000 + CALIBRATION)
        if network == "vae":
            return [vae_feeds(self.model, size, seed=seed) for seed in seeds]
        return [unet_feeds(self.model, network, size, 1, seed=seed) for seed in seeds]


def _convert(model: Model, network: Network, feeds: Feeds, path: Path) -> None:
    import openvino as ov
    import torch

    from .modules import in_half, module_of, tensors

    module = module_of(model, network, torch.float32)
    with torch.no_grad():
        converted = ov.convert_model(module, example_input=tensors(feeds, torch.float32))
    ov.save_model(converted, path, compress_to_fp16=in_half(model, network))


def _quantized(model: Any, numbers: Numbers, samples: list[Feeds]) -> Any:
    """NNCF's documented ways: weights alone, or weights and activations for a model with attention."""
    import nncf

    if numbers == "int8-weight":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    return nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))


def open_system(model: Model, precision: str, numbers: Numbers) -> OpenVino:
    """See `OpenVino`."""
    return OpenVino(model=model, precision=precision, numbers=numbers)
