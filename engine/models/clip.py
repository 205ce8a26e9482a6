"""CLIP's text encoder: the hidden states that a U-Net reads, and the projected end-of-text state.

Parameter names are those of published checkpoints and of transformers' `CLIPTextModelWithProjection` (`text_model.…`).
Held to transformers by tests/engine/models/test_clip.py.
"""

import torch
from torch import Tensor, nn

from ..architecture import TextEncoderArchitecture, TextOutput
from .clip_layers import ClipEncoder, Positions
from .operations import rows_at

LEGACY_END_OF_TEXT = 2
"""Configs written before transformers' pull request 24773 say 2, where the token is in truth the largest id."""


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


class ClipTransformer(nn.Module):
    """Embeddings and layers; where nothing reads the last layer, neither it nor the final norm are part of it."""

    def __init__(self, architecture: TextEncoderArchitecture) -> None:
        super().__init__()
        a = architecture
        whole = a.pooled or a.output is TextOutput.LAST_NORMED
        self.embeddings = ClipEmbeddings(a)
        self.encoder = ClipEncoder(a, a.num_hidden_layers - (0 if whole else 1 + a.clip_skip), causal=True)
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
