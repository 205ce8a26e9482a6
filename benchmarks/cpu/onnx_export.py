"""ONNX Runtime on diffusers' modules, exported by torch as optimum does: float32, sizes left open."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from .inputs import Feeds, unet_feeds, vae_feeds
from .job import Model, Network
from .systems import Call

OPSET: Final = 18
EXAMPLE_SIZE: Final = 512
SIDES: Final = {"sample": {0: "batch", 2: "height", 3: "width"}, "latents": {0: "batch", 2: "height", 3: "width"}}
"""Which dimensions are open; of every other input but the timestep, the first."""


@dataclass(frozen=True, kw_only=True)
class OnnxExport:
    """Sessions with ONNX Runtime's own settings."""

    model: Model
    text_dtype: str = "float32"

    def prepare(self, network: Network) -> None:
        """Export."""
        import torch

        from .modules import module_of, tensors

        path = self._file(network)
        if path.exists():
            return
        aside = path.with_name("model.onnx.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        size = EXAMPLE_SIZE // self.model.scale
        feeds = vae_feeds(self.model, size) if network == "vae" else unet_feeds(self.model, network, size, 2)
        module = module_of(self.model, network, torch.float32)
        given = tensors(feeds, torch.float32)
        with torch.no_grad():
            torch.onnx.export(
                module, (given,), str(aside), dynamo=False, opset_version=OPSET, input_names=list(given),
                output_names=["result"],
                dynamic_axes={name: SIDES.get(name, {0: "batch"}) for name in given if name != "timestep"},
            )  # fmt: skip
        aside.replace(path)

    def load(self, network: Network, feeds: Feeds) -> Call:
        """Make a session."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.model.threads
        session = ort.InferenceSession(str(self._file(network)), options, providers=["CPUExecutionProvider"])

        def call(feeds: Feeds) -> np.ndarray:
            found: np.ndarray = session.run(None, feeds)[0]
            return found

        return call

    def _file(self, network: Network) -> Path:
        return self.model.work / "onnx" / network / "model.onnx"


def open_system(model: Model) -> OnnxExport:
    """See `OnnxExport`."""
    return OnnxExport(model=model)
