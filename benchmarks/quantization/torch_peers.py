"""Others' quantization of the same torch modules: the linear layers of U-Nets and conditioners, the rest in float32."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from pocketxl.engine.specs import Role

from .cases import Case
from .systems import AbsentError, Opened, System, weight_bytes
from .torch_runner import TorchRunner, torch_runners

Calibrate = Callable[[], None]
"""Runs the module on float32's samples."""
Change = Callable[[nn.Module, Calibrate], nn.Module]


def quanto_weights(module: nn.Module, calibrate: Calibrate) -> nn.Module:
    """optimum-quanto: int8 weights per output channel."""
    from optimum.quanto import freeze, qint8, quantize

    quantize(module, weights=qint8, include=_linears(module))
    freeze(module)
    return module


def quanto_activations(module: nn.Module, calibrate: Calibrate) -> nn.Module:
    """optimum-quanto: the same with int8 activations, one calibrated range per tensor."""
    from optimum.quanto import Calibration, freeze, qint8, quantize

    quantize(module, weights=qint8, activations=qint8, include=_linears(module))
    with Calibration():
        calibrate()
    freeze(module)
    return module


def sdnq_weights(module: nn.Module, calibrate: Calibrate) -> nn.Module:
    """sdnq: int8 weights, groups of its own choice."""
    from sdnq import sdnq_post_load_quant

    return sdnq_post_load_quant(module, weights_dtype="int8", use_quantized_matmul=False)  # type: ignore[no-any-return]


def sdnq_products(module: nn.Module, calibrate: Calibrate) -> nn.Module:
    """sdnq: int8 weights per output channel and int8 activations per token."""
    from sdnq import sdnq_post_load_quant

    return sdnq_post_load_quant(module, weights_dtype="int8", use_quantized_matmul=True)  # type: ignore[no-any-return]


def torchao_dynamic(module: nn.Module, calibrate: Calibrate) -> nn.Module:
    """torchao: int8 weights per output channel and int8 activations per token."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return module


def torchao_smoothquant(module: nn.Module, calibrate: Calibrate) -> nn.Module:
    """torchao: the same behind SmoothQuant with a strength of a half (Xiao et al., 2022)."""
    from torchao.prototype.smoothquant import SmoothQuantConfig
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    config = Int8DynamicActivationInt8WeightConfig()
    quantize_(module, SmoothQuantConfig(base_config=config, step="prepare", alpha=0.5))
    calibrate()
    quantize_(module, SmoothQuantConfig(base_config=config, step="convert", alpha=0.5))
    return module


PEERS: dict[str, Change] = {
    "quanto-int8-weight": quanto_weights,
    "quanto-int8": quanto_activations,
    "sdnq-int8-weight": sdnq_weights,
    "sdnq-int8": sdnq_products,
    "torchao-int8": torchao_dynamic,
    "torchao-smoothquant": torchao_smoothquant,
}


def torch_peers() -> Iterable[System]:
    """A system for each row."""
    return [System(name=name, open=_open(change)) for name, change in PEERS.items()]


def _open(change: Change) -> Callable[[Case], Opened]:
    def open_peer(case: Case) -> Opened:
        runners = torch_runners(case.components)
        for name, runner in runners.items():
            if runner.spec.role in (Role.UNET, Role.CONDITIONER):
                try:
                    runner.module = change(runner.module, _calibrating(case, name, runner))
                except ImportError as error:
                    raise AbsentError(f"{error.name or error} is not installed") from error
        return Opened(runners=runners, size_bytes=weight_bytes(runners))

    return open_peer


def _calibrating(case: Case, name: str, runner: TorchRunner) -> Calibrate:
    def calibrate() -> None:
        for calls in case.samples.inputs[name].values():
            for inputs in calls:
                runner.outputs(inputs)

    return calibrate


def _linears(module: nn.Module) -> Any:
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
