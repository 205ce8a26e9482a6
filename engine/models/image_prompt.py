"""What makes keys and values of a picture's features, of an IP-Adapter with or without a resampler (Plus).

Parameter names are diffusers' (`ImageProjection`, `IPAdapterPlusImageProjection`), those of keys and values
`to_k_ip.<attention>`, in running order. Held to diffusers by tests/engine/models/test_image_prompt.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..image_prompt import IPAdapterArchitecture
from .operations import attention, in_rows, spread


class TokenProjection(nn.Module):
    """One linear layer and a norm."""

    def __init__(self, architecture: IPAdapterArchitecture) -> None:
        super().__init__()
        a = architecture
        self.tokens = a.tokens
        self.image_embeds = nn.Linear(a.vision.projection_dim, a.tokens * a.cross_attention_dim)
        self.norm = nn.LayerNorm(a.cross_attention_dim)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, projection_dim]` → `[batch, tokens, cross_attention_dim]`."""
        return self.norm(in_rows(self.image_embeds(features), self.tokens))  # type: ignore[no-any-return]


class ResamplerAttention(nn.Module):
    """Tokens attend to patches and to themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        inner = 64 * heads
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, width, bias=False)])

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """`x [batch, tokens, width]`, `seen [batch, any, width]` → the shape of `x`."""
        return self.to_out[0](attention(self.to_q(x), self.to_k(seen), self.to_v(seen), self.heads))  # type: ignore[no-any-return]


class Gelu(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` → `[..., inner]`."""
        return F.gelu(self.proj(x))


class ResamplerMlp(nn.Module):
    """Two linear layers; `net.1` is diffusers' dropout."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gelu(width, inner), nn.Identity(), nn.Linear(inner, width, bias=False)])

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` → the same shape."""
        return self.net[2](self.net[0](x))  # type: ignore[no-any-return]


class ResamplerBlock(nn.Module):
    """Attention and MLP, each normalised before and added after."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.ln0 = nn.LayerNorm(width)
        self.ln1 = nn.LayerNorm(width)
        self.attn = ResamplerAttention(width, heads)
        self.ff = nn.ModuleList([nn.LayerNorm(width), ResamplerMlp(width, inner)])

    def forward(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """`[batch, patches, width]`, `[batch, tokens, width]` → the latter's shape."""
        normed = self.ln1(tokens)
        tokens = self.attn(normed, torch.cat([self.ln0(patches), normed], dim=1)) + tokens
        return self.ff[1](self.ff[0](tokens)) + tokens  # type: ignore[no-any-return]


class Resampler(nn.Module):
    """Learned tokens that read the encoder's patches."""

    def __init__(self, architecture: IPAdapterArchitecture) -> None:
        super().__init__()
        a = architecture
        width = a.resampler_width
        self.latents = nn.Parameter(torch.empty(a.tokens, width))
        self.proj_in = nn.Linear(a.vision.hidden_size, width)
        self.layers = nn.ModuleList(
            ResamplerBlock(width, a.resampler_heads, a.resampler_inner) for _ in range(a.resampler_depth)
        )
        self.proj_out = nn.Linear(width, a.cross_attention_dim)
        self.norm_out = nn.LayerNorm(a.cross_attention_dim)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, positions, hidden]` → `[batch, tokens, cross_attention_dim]`."""
        patches = self.proj_in(features)
        tokens = spread(self.latents, patches)
        for layer in self.layers:
            tokens = layer(patches, tokens)
        return self.norm_out(self.proj_out(tokens))  # type: ignore[no-any-return]


class ImageProjection(nn.Module):
    """A picture's features → keys and values of every cross-attention."""

    def __init__(self, architecture: IPAdapterArchitecture) -> None:
        super().__init__()
        a = architecture
        self.image_proj = Resampler(a) if a.plus else TokenProjection(a)
        widths = a.widths
        self.to_k_ip = nn.ModuleList(nn.Linear(a.cross_attention_dim, width, bias=False) for width in widths)
        self.to_v_ip = nn.ModuleList(nn.Linear(a.cross_attention_dim, width, bias=False) for width in widths)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features → key 0, value 0, key 1, …, each `[batch, tokens, width]`."""
        tokens = self.image_proj(features.to(self.to_k_ip[0].weight.dtype))
        pairs = zip(self.to_k_ip, self.to_v_ip, strict=True)
        return tuple(layer(tokens) for pair in pairs for layer in pair)
