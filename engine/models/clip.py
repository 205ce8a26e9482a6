"""CLIP's text encoder: the hidden states that a U-Net reads, and the projected end-of-text state.

Parameter names are those of published checkpoints and of transformers' `CLIPTextModelWithProjection` (`text_model.…`).
Held to transformers by tests/engine/models/test_clip.py.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Activation, TextEncoderArchitecture, TextOutput
from .operations import attention, rows_at

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    Activation.GELU: F.gelu,
    Activation.QUICK_GELU: lambda x: x * (1.702 * x).sigmoid(),
}
LEGACY_END_OF_TEXT = 2
"""Configs written before transformers' pull request 24773 say 2, where the token is in truth the largest id."""


class ClipAttention(nn.Module):
    """Each token attends to itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]` → the same shape."""
        mixed = attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=True)
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

    def __init__(self, architecture: TextEncoderArchitecture) -> None:
        super().__init__()
        a = architecture
        width, eps = a.hidden_size, a.layer_norm_eps
        self.self_attn = ClipAttention(width, a.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = ClipMlp(width, a.intermediate_size, a.hidden_act)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]` → the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Positions(nn.Module):
    """A learned vector per position. A module of its own, so that whoever fills weights layer by layer sees it run."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))

    def forward(self) -> Tensor:
        """`[count, width]`."""
        return self.weight


class ClipEmbeddings(nn.Module):
    """Token and position embeddings; prompts always fill all positions."""

    def __init__(self, architecture: TextEncoderArchitecture) -> None:
        super().__init__()
        # With a weight of its own: the random one, on the meta device, costs seconds (the import of torch's compiler).
        words, width = architecture.vocab_size, architecture.hidden_size
        self.token_embedding = nn.Embedding(words, width, _weight=torch.empty(words, width))
        self.position_embedding = Positions(architecture.max_position_embeddings, width)

    def forward(self, input_ids: Tensor) -> Tensor:
        """`[batch, max_position_embeddings]` → `[batch, max_position_embeddings, width]`."""
        return self.token_embedding(input_ids) + self.position_embedding()  # type: ignore[no-any-return]


class ClipEncoder(nn.Module):
    """The layers in running order."""

    def __init__(self, architecture: TextEncoderArchitecture, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(architecture) for _ in range(layers)])


class ClipTransformer(nn.Module):
    """Embeddings and layers; where nothing reads the last layer, neither it nor the final norm are part of it."""

    def __init__(self, architecture: TextEncoderArchitecture) -> None:
        super().__init__()
        a = architecture
        whole = a.pooled or a.output is TextOutput.LAST_NORMED
        self.embeddings = ClipEmbeddings(a)
        self.encoder = ClipEncoder(a, a.num_hidden_layers - (0 if whole else 1 + a.clip_skip))
        if whole:
            self.final_layer_norm = nn.LayerNorm(a.hidden_size, eps=a.layer_norm_eps)


class ClipTextEncoder(nn.Module):
    """Token ids → hidden states, and the projected state of the end-of-text token if the architecture has one."""

    def __init__(self, architecture: TextEncoderArchitecture) -> None:
        super().__init__()
        a = architecture
        self.pooled, self.output, self.end_of_text = a.pooled, a.output, a.eos_token_id
        self.read_after = a.num_hidden_layers - 1 - a.clip_skip
        self.text_model = ClipTransformer(a)
        if a.pooled:
            self.text_projection = nn.Linear(a.hidden_size, a.projection_dim, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """`input_ids` int64 `[batch, 77]` → `[batch, 77, hidden_size]` (and `[batch, projection_dim]`)."""
        model = self.text_model
        *layers, last = model.encoder.layers
        x = model.embeddings(input_ids)
        read = x
        for index, layer in enumerate(layers, 1):
            x = layer(x)
            read = x if index == self.read_after else read
        normed = self.output is TextOutput.LAST_NORMED
        if not self.pooled:
            return model.final_layer_norm(last(x)) if normed else last(x)  # type: ignore[no-any-return]
        # Of equal largest ids the first counts: the padding may be the end-of-text token again.
        marks = input_ids if self.end_of_text == LEGACY_END_OF_TEXT else (input_ids == self.end_of_text).to(torch.int64)
        states = last(x)
        if normed:
            states = model.final_layer_norm(states)
            return states, self.text_projection(rows_at(states, marks.argmax(-1)))
        return read, self.text_projection(model.final_layer_norm(rows_at(states, marks.argmax(-1))))
