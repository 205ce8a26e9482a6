"""The layers that CLIP's text and image encoders have alike, under the names of published checkpoints."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Activation, TextEncoderArchitecture
from ..image_prompt import VisionArchitecture
from .operations import attention

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    Activation.GELU: F.gelu,
    Activation.QUICK_GELU: lambda x: x * (1.702 * x).sigmoid(),
}


ClipNumbers = TextEncoderArchitecture | VisionArchitecture
"""What shapes a layer; both have the numbers of one under the same names."""


class ClipAttention(nn.Module):
    """Each position attends to all, or with `causal` to itself and those before it."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, positions, width]` → the same shape."""
        mixed = attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=self.causal)
        return self.out_proj(mixed)  # type: ignore[no-any-return]


class ClipMlp(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int, inner: int, activation: Activation) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` → the same shape."""
        return self.fc2(self.activation(self.fc1(x)))  # type: ignore[no-any-return]


class ClipLayer(nn.Module):
    """Attention and MLP, each normalised before and added after."""

    def __init__(self, numbers: ClipNumbers, *, causal: bool) -> None:
        super().__init__()
        n = numbers
        width, eps = n.hidden_size, n.layer_norm_eps
        self.self_attn = ClipAttention(width, n.num_attention_heads, causal=causal)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = ClipMlp(width, n.intermediate_size, n.hidden_act)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, positions, width]` → the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class ClipEncoder(nn.Module):
    """So many layers in running order."""

    def __init__(self, numbers: ClipNumbers, layers: int, *, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(numbers, causal=causal) for _ in range(layers)])


class Positions(nn.Module):
    """A learned vector per position. A module of its own, so that whoever fills weights layer by layer sees it run."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))

    def forward(self) -> Tensor:
        """`[count, width]`."""
        return self.weight
