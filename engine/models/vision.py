"""CLIP's image encoder, as IP-Adapters read it: its projected state, or its hidden states before the last layer.

Parameter names are those of transformers' `CLIPVisionModelWithProjection` (`vision_model.…`, `visual_projection`).
Held to transformers by tests/engine/models/test_image_prompt.py.
"""

import torch
from torch import Tensor, nn

from ..image_prompt import IPAdapterArchitecture, VisionArchitecture
from .clip_layers import ClipEncoder, Positions
from .operations import first_row, spread


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


class VisionModel(nn.Module):
    """Embeddings, layers, and where the state of the whole is read a last norm."""

    def __init__(self, architecture: VisionArchitecture, *, layers: int, pooled: bool) -> None:
        super().__init__()
        width, eps = architecture.hidden_size, architecture.layer_norm_eps
        self.embeddings = VisionEmbeddings(architecture)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)  # transformers' spelling
        self.encoder = ClipEncoder(architecture, layers, causal=False)
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
