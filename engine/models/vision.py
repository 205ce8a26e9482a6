"""CLIP's image encoder, as IP-Adapters read it: its projected state, or its hidden states before the last layer.

Parameter names are those of transformers' `CLIPVisionModelWithProjection` (`vision_model.…`, `visual_projection`).
Held to transformers by tests/engine/models/test_image_prompt.py.
"""

import torch
from torch import Tensor, nn

from ..image_prompt import IPAdapterArchitecture, VisionArchitecture
from .clip import ClipMlp, Positions
from .operations import attention, first_row, spread


class VisionAttention(nn.Module):
    """Each patch attends to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, patches, width]` → the same shape."""
        mixed = attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads)
        return self.out_proj(mixed)  # type: ignore[no-any-return]


class VisionLayer(nn.Module):
    """Attention and MLP, each normalised before and added after."""

    def __init__(self, architecture: VisionArchitecture) -> None:
        super().__init__()
        a = architecture
        width, eps = a.hidden_size, a.layer_norm_eps
        self.self_attn = VisionAttention(width, a.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = ClipMlp(width, a.intermediate_size, a.hidden_act)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, patches, width]` → the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class VisionEmbeddings(nn.Module):
    """A vector for the whole and one for each patch, with their positions."""

    def __init__(self, architecture: VisionArchitecture) -> None:
        super().__init__()
        width, patch = architecture.hidden_size, architecture.patch_size
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = Positions(architecture.positions, width)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[batch, 3, side, side]` → `[batch, positions, width]`."""
        patches = self.patch_embedding(pixels.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        whole = spread(self.class_embedding, patches)
        return torch.cat([whole, patches], dim=1) + self.position_embedding()  # type: ignore[no-any-return]


class VisionEncoder(nn.Module):
    """The layers in running order."""

    def __init__(self, architecture: VisionArchitecture, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([VisionLayer(architecture) for _ in range(layers)])


class VisionModel(nn.Module):
    """Embeddings, layers, and where the state of the whole is read a last norm."""

    def __init__(self, architecture: VisionArchitecture, *, layers: int, pooled: bool) -> None:
        super().__init__()
        width, eps = architecture.hidden_size, architecture.layer_norm_eps
        self.embeddings = VisionEmbeddings(architecture)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)  # transformers' spelling
        self.encoder = VisionEncoder(architecture, layers)
        if pooled:
            self.post_layernorm = nn.LayerNorm(width, eps=eps)


class ImageEncoder(nn.Module):
    """A picture → what an IP-Adapter makes tokens of. The last layer is there only where it is read."""

    def __init__(self, architecture: IPAdapterArchitecture) -> None:
        super().__init__()
        vision, self.plus = architecture.vision, architecture.plus
        layers = vision.num_hidden_layers - self.plus
        self.vision_model = VisionModel(vision, layers=layers, pooled=not self.plus)
        if not self.plus:
            self.visual_projection = nn.Linear(vision.hidden_size, vision.projection_dim, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[batch, 3, side, side]` → `[batch, positions, width]`, or `[batch, projection_dim]`."""
        model = self.vision_model
        x = model.pre_layrnorm(model.embeddings(pixels))
        for layer in model.encoder.layers:
            x = layer(x)
        return x if self.plus else self.visual_projection(model.post_layernorm(first_row(x)))  # type: ignore[no-any-return]
