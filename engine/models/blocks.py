"""The building blocks that SDXL's U-Net and VAE are made of; attribute names are diffusers' state-dict names."""

import torch.nn.functional as F
from torch import Tensor, nn

from .operations import attention, upsample_like


class Resnet(nn.Module):
    """Two normalised 3×3 convolutions around a shortcut; the time vector is added between them."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, time_vector: Tensor | None = None) -> Tensor:
        """`x [batch, in, h, w]`, `time_vector [batch, out]` → `[batch, out, h, w]`."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        if time_vector is not None:
            hidden = hidden + time_vector[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Attention of tokens among themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]` → the same shape."""
        return self.to_out[0](attention(self.to_q(x), self.to_k(x), self.to_v(x), self.heads))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Attention to the prompt, whose keys and values the conditioner has already computed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`x [batch, pixels, width]`, `key`, `value [batch, tokens, width]` → the shape of `x`."""
        return self.to_out[0](attention(self.to_q(x), key, value, self.heads))  # type: ignore[no-any-return]


class GatedGelu(nn.Module):
    """`a · gelu(b)` of one projection to twice the width."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` → `[..., inner]`."""
        hidden, gate = self.proj(x).chunk(2, dim=-1)
        return hidden * F.gelu(gate)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """GEGLU and a projection back; `net.1` is diffusers' dropout, which inference does not have."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` → the same shape."""
        return self.net[2](self.net[0](x))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each normalised before and added after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`x [batch, pixels, width]` → the same shape."""
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), key, value) + x
        return self.ff(self.norm3(x)) + x  # type: ignore[no-any-return]


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of an image."""

    def __init__(self, width: int, heads: int, depth: int, *, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)  # diffusers fixes this one, whatever `norm_eps` says
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads) for _ in range(depth)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, key_values: list[Tensor]) -> Tensor:
        """`x [batch, width, h, w]`; `key_values` holds key and value of every block in turn."""
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for i, block in enumerate(self.transformer_blocks):
            tokens = block(tokens, key_values[2 * i], key_values[2 * i + 1])
        return self.proj_out(tokens).transpose(1, 2).reshape_as(x) + x  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Halve height and width, rounding up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, c, h, w]` → `[batch, c, ceil(h/2), ceil(w/2)]`."""
        return self.conv(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Double height and width, or grow to the size of `like` where a level above had an odd size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """`[batch, c, h, w]` → `[batch, c, 2h, 2w]` or the height and width of `like`."""
        grown = F.interpolate(x, scale_factor=2.0, mode="nearest") if like is None else upsample_like(x, like)
        return self.conv(grown)  # type: ignore[no-any-return]
