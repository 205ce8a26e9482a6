"""The working memory of an engine of TensorRT: the library says it, on the GPU that the engine was built on."""

from collections.abc import Mapping
from pathlib import Path

from ....engine.folder.manifest import ActivationModel
from ....engine.runners.device import CudaDevice
from ....engine.runners.tensorrt_engine import TensorRTEngine
from ....engine.runners.tensorrt_library import FULL, import_tensorrt
from ....engine.specs import ComponentSpec
from ..rtx.memory import Shape, fitted_memory


def working_memory(engine: Path, spec: ComponentSpec, largest: int) -> ActivationModel | None:
    """What it asks for at some sizes, and the outputs, fitted; None where it takes one of the sizes not.

    Raises what opening an engine raises.
    """
    device = CudaDevice()
    device.driver.enter()
    opened = TensorRTEngine(import_tensorrt(FULL), engine, device, size=engine.stat().st_size, digest="")

    def arena(shapes: Mapping[str, Shape]) -> int | None:
        if not all(opened.context.set_input_shape(name, shape) for name, shape in shapes.items()):
            return None
        return int(opened.context.update_device_memory_size_for_shapes())

    try:
        opened.load()
        return fitted_memory(spec, arena, largest)
    finally:
        opened.close()
        device.close()
