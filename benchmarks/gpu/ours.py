"""Our U-Nets and VAE through the engine's own runner: arrays of the host go in, and the prediction comes out there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch

from pocketxl.engine.errors import IncompatibleError, PocketXLError
from pocketxl.engine.runners import back_end
from pocketxl.engine.runners.base import Runner, call
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.export.quantize.recipes import RECIPES as RECIPES_OF_ALL
from pocketxl.export.target import Target
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import check
from pocketxl.export.targets.cuda.target import CudaTarget

from .component import build_component, parts_of
from .conditions import conditions
from .device_clock import device_clock
from .inputs import Inputs
from .networks import Network
from .systems import EVERY, Opened, Ready, System

RECIPES: Final = ("int8", "fp16", "int4", "int8-weight", "int4-weight")
MakeRunner = Callable[[Network, Path], Runner]
FindTarget = Callable[[], Target]
"""Finds the one for the GPU at hand; raises `IncompatibleError` where there is none."""


def cuda_target() -> Target:
    """Our kernels."""
    major, minor = torch.cuda.get_device_capability()
    return CudaTarget(name="cuda", architectures=(10 * major + minor,))


def rtx_target() -> Target:
    """TensorRT for RTX."""
    major, minor = torch.cuda.get_device_capability()
    if (name := f"rtx-sm{major}{minor}") not in TARGETS:
        raise IncompatibleError(f"TensorRT for RTX builds nothing for compute capability {major}.{minor}")
    return TARGETS[name]


def built_runner(network: Network, folder: Path, *, recipe: str, target: FindTarget) -> Runner:
    """The component of that recipe, built in `folder` for the GPU at hand."""
    found = target()
    entry = build_component(network, recipe, folder, found)
    device, runner = back_end(found.runner)
    return runner(folder, parts_of(network).name, entry, device(threads=None))


def module_runner(network: Network, folder: Path) -> Runner:
    """The module that is exported, in float32 by torch: stands in where there is no GPU, to try all around it."""
    from ..quantization.torch_runner import TorchRunner

    parts = parts_of(network)
    with torch.device("meta"):
        module = parts.module()
    state = {name: network.weights.tensor(name).float() for name in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return TorchRunner(name=parts.name, spec=parts.spec, module=module.eval().requires_grad_(False))


@contextmanager
def opened(network: Network, *, make: MakeRunner, kept: Path | None) -> Iterator[Opened]:
    """A runner of the network. `kept`: folder for the component's files, which a later run finds; None: they go.

    The GPU's own time is told of runners that replay our graphs.
    """
    with TemporaryDirectory(prefix="pocketxl-") as aside:
        folder = Path(aside) if kept is None else kept / network.name
        folder.mkdir(parents=True, exist_ok=True)
        runner = make(network, folder)
        try:
            runner.load()
            clock = device_clock(runner.device) if isinstance(runner, CudaRunner) else None
            yield partial(_ready, network, runner, clock)
        finally:
            runner.release()
            runner.device.close()


@contextmanager
def _ready(network: Network, runner: Runner, clock: Callable[[], float] | None, inputs: Inputs) -> Iterator[Ready]:
    """Keys and values are held, time vectors on the host, as a pipeline has them."""
    latents, output = inputs.latents.cpu().numpy(), runner.spec.outputs[0].name
    if network.name == "vae":

        def decode(latents: np.ndarray, step: int) -> np.ndarray:
            return call(runner, {"latents": latents})[output]

        yield Ready(latents=latents, predict=decode, device_seconds=clock)
        return
    vectors, key_values = conditions(network, inputs)
    steps = vectors.cpu().numpy()
    names = [tensor.name for tensor in network.architecture.key_values()]
    host = {name: tensor.cpu().numpy() for name, tensor in zip(names, key_values, strict=True)}
    del vectors, key_values
    held = runner.hold(host)

    def predict(latents: np.ndarray, step: int) -> np.ndarray:
        return call(runner, {"latents": latents, "time_vectors": steps[step]}, held)[output]

    try:
        yield Ready(latents=latents, predict=predict, device_seconds=clock)
    finally:
        held.release()


def ours(work: Path | None = None) -> tuple[System, ...]:
    """Our systems. `work`: folder that keeps built components; remove it once exporter or kernels have changed."""

    def system(name: str, recipe: str, target: FindTarget, *, compiles: bool = True) -> System:
        kept = None if work is None else work / name
        return System(
            name=name,
            networks=EVERY,
            open=partial(opened, make=partial(built_runner, recipe=recipe, target=target), kept=kept),
            compiles=compiles,
            on_the_host=True,
            reason=partial(reason, recipe, target),
        )

    return (
        *(system(f"pocketxl-{recipe}", recipe, cuda_target, compiles=False) for recipe in RECIPES),
        *(system(f"pocketxl-rtx-{recipe}", recipe, rtx_target) for recipe in RECIPES),
        # Nobody else's: our ONNX of diffusers' network, through TensorRT's own builder.
        system("tensorrt-fp16", "fp16", lambda: TARGETS["tensorrt"]),
        *([] if torch.cuda.is_available() else [STAND_IN]),
    )


def reason(recipe: str, target: FindTarget) -> str | None:
    """Why a recipe cannot be measured on this machine; None if it can."""
    if not torch.cuda.is_available():
        return "there is no GPU"
    try:
        found = target()
        check(found, RECIPES_OF_ALL[recipe])
        found.machine()
    except PocketXLError as error:
        return str(error)
    return None


STAND_IN: Final = System(
    name="module-fp32",
    networks=EVERY,
    open=partial(opened, make=module_runner, kept=None),
    on_the_host=True,
)
