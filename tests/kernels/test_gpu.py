"""What only a GPU can show: the compiled kernels' results, CUDA graphs, and torch.compile with its own code generator.

Run with `TRITON_INTERPRET=0 pytest -m gpu tests/kernels`.
"""

import pytest
import torch
from torch import Tensor

from pocketxl.kernels import ops
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.samples import samples
from pocketxl.kernels.sdxl import all_launch_plans

from ..fixtures.kernels import DEVICE, poisoned

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE != "cuda" or not torch.cuda.is_available(),
        reason="needs an NVIDIA GPU and TRITON_INTERPRET=0",
    ),
]


def test_every_shipped_plan_runs_alike_twice_and_writes_everything() -> None:
    for plan in all_launch_plans(architecture_of(torch.empty(0, device=DEVICE))):
        inputs = samples(plan, device=DEVICE)
        first, second = (execute(plan, inputs, allocate=poisoned) for _ in range(2))
        for name, value in first.items():
            assert torch.equal(value.view(torch.uint8), second[name].view(torch.uint8)), (plan.op, name)
            if value.dtype.is_floating_point and value.dtype.itemsize > 1:
                assert not value.isnan().any(), (plan.op, name)


class Block(torch.nn.Module):
    """Norm, quantized projection and gate: three ops as they follow one another in SDXL."""

    def forward(self, x: Tensor, weight: Tensor, weight_scale: Tensor, norm: Tensor) -> Tensor:
        quantized, scale = ops.layer_norm_quantize(x, norm, norm, 1e-5)
        gated: Tensor = ops.geglu_linear_w8a8(quantized, scale, weight, weight_scale)
        return gated * 2


def block_inputs() -> tuple[Tensor, ...]:
    random = torch.Generator(DEVICE).manual_seed(0)
    return (
        torch.randn(2, 1024, 640, device=DEVICE, generator=random).half(),
        torch.randint(-127, 128, (5120, 640), device=DEVICE, generator=random, dtype=torch.int8),
        torch.rand(5120, device=DEVICE, generator=random) * 1e-3,
        torch.randn(640, device=DEVICE, generator=random).half(),
    )


def test_compiled_by_inductor() -> None:
    given = block_inputs()
    expected = Block()(*given)
    compiled = torch.compile(Block(), fullgraph=True)
    assert torch.equal(compiled(*given), expected)


def test_in_a_cuda_graph() -> None:
    given = block_inputs()
    expected = Block()(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = Block()(*given)
    value.zero_()
    graph.replay()
    assert torch.equal(value, expected)
