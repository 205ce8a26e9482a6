"""What others offer for the same networks in torch: diffusers as it is, captured, compiled, with sums in float16."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor, nn

from .calls import Calls
from .captured import captured
from .inputs import Inputs
from .networks import Network
from .systems import EVERY, UNETS, Opened, Ready, System

Predict = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a peer runs a module. `mode`: torch.compile's. `capture`: one CUDA graph around eager calls."""

    mode: str | None = None
    capture: bool = False
    short_sums: bool = False
    change: Callable[[nn.Module], nn.Module] | None = None


@contextmanager
def opened(network: Network, way: Way) -> Iterator[Opened]:
    """Diffusers' float16 module, run in that way."""
    torch.backends.cudnn.benchmark = True
    module: Any = network.module(torch.float16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if way.change is not None:
        module = way.change(module)
    if way.mode is not None:
        torch._dynamo.reset()
        # Without a GPU only that the network can be traced whole is of interest.
        how: dict[str, Any] = {"mode": way.mode} if network.device == "cuda" else {"backend": "eager"}
        module = torch.compile(module, fullgraph=True, dynamic=False, **how)

    @contextmanager
    def ready(inputs: Inputs) -> Iterator[Ready]:
        calls = Calls(module, inputs, torch.float16)
        predict: Predict = calls
        if way.capture and network.device == "cuda":
            predict = captured(calls, inputs.latents)
        elif way.mode is not None:
            predict = _each_a_step(calls)
        with torch.no_grad():
            yield Ready(latents=inputs.latents, predict=predict)

    try:
        with _short_sums() if way.short_sums else nullcontext():
            yield ready
    finally:
        torch.backends.cudnn.benchmark = False
        if way.mode is not None:
            torch._dynamo.reset()


def _each_a_step(predict: Predict) -> Predict:
    """The compiler's own graphs reuse the memory of results from here on."""

    def marked(latents: Tensor, step: int) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return predict(latents, step)

    return marked


@contextmanager
def _short_sums() -> Iterator[None]:
    """Sums of float16 products in float16, wherever this torch can."""
    matmul = torch.backends.cuda.matmul
    names = [
        name for name in ("allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation") if hasattr(matmul, name)
    ]
    before = {name: getattr(matmul, name) for name in names}
    for name in names:
        setattr(matmul, name, True)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)


def _sdnq(module: nn.Module) -> nn.Module:
    """int8 weights per output channel and int8 activations per token."""
    from sdnq import sdnq_post_load_quant

    return sdnq_post_load_quant(module, weights_dtype="int8", use_quantized_matmul=True)  # type: ignore[no-any-return]


def _fused(module: Any) -> nn.Module:
    """Diffusers' own advice for compilers: queries, keys and values of one input in one product."""
    module.fuse_qkv_projections()
    fused: nn.Module = module
    return fused


def _no_sdnq() -> str | None:
    return None if find_spec("sdnq") else "sdnq is not installed"


def _open(way: Way) -> Callable[[Network], AbstractContextManager[Opened]]:
    return partial(opened, way=way)


def _compiled(name: str, mode: str, *, short: bool = False) -> System:
    return System(name=name, networks=EVERY, open=_open(Way(mode=mode, short_sums=short)), compiles=True)


PEERS: Final = (
    System(name="diffusers-fp16", networks=EVERY, open=_open(Way())),
    System(name="diffusers-fp16-graph", networks=EVERY, open=_open(Way(capture=True))),
    _compiled("torch-compile-fp16", "reduce-overhead"),
    System(name="sdnq-int8", networks=UNETS, open=_open(Way(change=_sdnq)), reason=_no_sdnq),
    _compiled("torch-compile-fp16-short-sums", "reduce-overhead", short=True),
    System(
        name="torch-compile-fp16-fused",
        networks=UNETS,
        open=_open(Way(mode="reduce-overhead", change=_fused)),
        compiles=True,
    ),
    _compiled("torch-compile-max-fp16", "max-autotune"),
    _compiled("torch-compile-max-fp16-short-sums", "max-autotune", short=True),
)
