"""Runs of several ops, ours against torch's own and torch.compile's: what fusing by hand gains over a compiler."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pocketxl.kernels.architecture import Architecture
from pocketxl.kernels.execute import execute
from pocketxl.kernels.samples import samples
from pocketxl.kernels.sdxl import Call, launch_plan

from .cases import BATCH
from .systems import DEVICE, System, Work, compiled_once, normal

WIDTH = 1280
ROWS = BATCH * 32 * 32


def blocks(arch: Architecture) -> dict[str, dict[str, System]]:
    """The systems of every block by the block's name: the feed-forward of a transformer block at 1280 channels."""

    def feed_forward(x: Tensor, norm: list[Tensor], wide: list[Tensor], back: list[Tensor]) -> Tensor:
        value, gate = F.linear(F.layer_norm(x, (WIDTH,), norm[0], norm[1]), *wide).chunk(2, -1)
        return F.linear(value * F.gelu(gate), *back) + x

    return {
        f"feed_forward_m{ROWS}_k{WIDTH}": {
            "pocketxl": _ours(arch),
            "torch-fp16": _torch(feed_forward),
            "torch-compile-fp16": _torch(compiled_once(feed_forward)),
        }
    }


def _ours(arch: Architecture) -> System:
    m, k, n = ROWS, WIDTH, 4 * WIDTH
    norm, wide, narrow, back = (
        launch_plan(Call(op=op, shape=shape, count=1), arch)
        for op, shape in (
            ("layer_norm_quantize", {"m": m, "c": k}),
            ("geglu_linear_w8a8", {"m": m, "n": n, "k": k}),
            ("quantize_per_token", {"m": m, "c": n}),
            ("linear_w8a8", {"m": m, "n": k, "k": n, "residual": True}),
        )
    )

    def system(seed: int) -> Work:
        given = [samples(made, device=DEVICE, seed=seed + 10 * i) for i, made in enumerate((norm, wide, narrow, back))]
        x = given[0]["x"]

        def run() -> object:
            first = execute(norm, given[0])
            gated = execute(wide, {**given[1], "x": first["q"], "x_scale": first["scale"]})["out"]
            second = execute(narrow, {"x": gated})
            return execute(back, {**given[3], "x": second["q"], "x_scale": second["scale"], "residual": x})

        return run

    return system


def _torch(function: Any) -> System:
    def system(seed: int) -> Work:
        def layer(n: int, k: int, seed: int) -> list[Tensor]:
            return [normal(n, k, seed=seed), normal(n, seed=seed + 1)]

        x = normal(ROWS, WIDTH, seed=seed)
        norm = [normal(WIDTH, seed=seed + 1), normal(WIDTH, seed=seed + 2)]
        wide, back = layer(8 * WIDTH, WIDTH, seed + 3), layer(WIDTH, 4 * WIDTH, seed + 5)
        return lambda: function(x, norm, wide, back)

    return system
