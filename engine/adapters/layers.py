"""Every layer of an engine's models that a LoRA can change: in which component it lies, and its size.

From the architecture alone, so that a file is understood before anything is loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..architecture import Models, TextEncoderArchitecture, TextOutput, UNetArchitecture
from ..topology import Block, BlockKind

HOISTED = ("attn2.to_k", "attn2.to_v", "time_emb_proj")
"""How names of layers end that the conditioner holds, besides the embeddings."""
EMBEDDINGS = ("time_embedding.", "add_embedding.")
ATTENTION = tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out"))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One linear layer or convolution."""

    name: str
    """As the engine's weights name it, without `.weight`."""
    out_channels: int
    in_channels: int
    kernel: tuple[int, ...] = ()
    """Height and width of a convolution's; none for a linear layer."""
    component: str = ""
    """Where it lies: `base/unet`, `text_encoder`, …; empty for one that the engine leaves out, as nothing reads it."""

    @property
    def columns(self) -> int:
        """Width of its weight as a matrix."""
        height, width = self.kernel or (1, 1)
        return self.in_channels * height * width


def unet_layers(architecture: UNetArchitecture, kind: str) -> Iterator[Layer]:
    """The layers of a U-Net, by diffusers' names; `kind` is `base` or `refiner`."""
    for layer in _unet(architecture):
        name = layer.name
        hoisted = name.endswith(HOISTED) or name.startswith(EMBEDDINGS)
        component = f"{kind}/{'conditioner' if hoisted else 'unet'}"
        yield Layer(**{**vars(layer), "component": component})


def text_encoder_layers(architecture: TextEncoderArchitecture, component: str) -> Iterator[Layer]:
    """The layers of a text encoder, by transformers' names; those that are never read lie in no component."""
    a = architecture
    width, inner = a.hidden_size, a.intermediate_size
    whole = a.pooled or a.output is TextOutput.LAST_NORMED
    for index in range(a.num_hidden_layers):
        where = component if whole or index + 1 < a.num_hidden_layers else ""
        stem = f"text_model.encoder.layers.{index}"
        for part in ATTENTION:
            yield Layer(name=f"{stem}.{part}", out_channels=width, in_channels=width, component=where)
        yield Layer(name=f"{stem}.mlp.fc1", out_channels=inner, in_channels=width, component=where)
        yield Layer(name=f"{stem}.mlp.fc2", out_channels=width, in_channels=inner, component=where)
    if a.pooled:
        yield Layer(name="text_projection", out_channels=a.projection_dim, in_channels=width, component=component)


def text_encoders(models: Models) -> Mapping[str, str]:
    """`te1`, `te2` → the component; the refiner's own text encoder counts where the base has none of that place."""
    found: dict[str, str] = {}
    for component in models.text_encoders:
        place = "te2" if component.endswith("_2") else "te1"
        if "/" not in component or place not in found:
            found[place] = component
    return found


def _unet(architecture: UNetArchitecture) -> Iterator[Layer]:
    a = architecture
    first, time = a.block_out_channels[0], a.time_embed_dim
    yield _conv("conv_in", first, a.in_channels)
    yield _conv("conv_out", a.out_channels, first)
    yield _linear("time_embedding.linear_1", time, first)
    yield _linear("time_embedding.linear_2", time, time)
    if a.time_cond_proj_dim:
        yield _linear("time_embedding.cond_proj", first, a.time_cond_proj_dim)
    if a.projection_class_embeddings_input_dim:
        yield _linear("add_embedding.linear_1", time, a.projection_class_embeddings_input_dim)
        yield _linear("add_embedding.linear_2", time, time)
    for block in a.blocks():
        width = block.out_channels
        match block.kind:
            case BlockKind.RESNET:
                yield _conv(f"{block.name}.conv1", width, block.in_channels)
                yield _conv(f"{block.name}.conv2", width, width)
                yield _linear(f"{block.name}.time_emb_proj", width, time)
                if block.in_channels != width:
                    yield _conv(f"{block.name}.conv_shortcut", width, block.in_channels, 1)
            case BlockKind.TRANSFORMER:
                yield from _transformer(block, a.cross_attention_dim)
            case BlockKind.DOWNSAMPLER | BlockKind.UPSAMPLER:
                yield _conv(f"{block.name}.conv", width, width)


def _transformer(block: Block, context: int) -> Iterator[Layer]:
    width = block.out_channels
    yield _linear(f"{block.name}.proj_in", width, width)
    for index in range(block.depth):
        stem = f"{block.name}.transformer_blocks.{index}"
        for attention in ("attn1", "attn2"):
            inputs = width if attention == "attn1" else context
            yield _linear(f"{stem}.{attention}.to_q", width, width)
            yield _linear(f"{stem}.{attention}.to_k", width, inputs)
            yield _linear(f"{stem}.{attention}.to_v", width, inputs)
            yield _linear(f"{stem}.{attention}.to_out.0", width, width)
        yield _linear(f"{stem}.ff.net.0.proj", 8 * width, width)
        yield _linear(f"{stem}.ff.net.2", width, 4 * width)
    yield _linear(f"{block.name}.proj_out", width, width)


def _linear(name: str, outputs: int, inputs: int) -> Layer:
    return Layer(name=name, out_channels=outputs, in_channels=inputs)


def _conv(name: str, outputs: int, inputs: int, side: int = 3) -> Layer:
    return Layer(name=name, out_channels=outputs, in_channels=inputs, kernel=(side, side))
