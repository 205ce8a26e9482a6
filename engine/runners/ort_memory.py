"""What a component takes on ONNX Runtime, as a whole and in segments.

Measured on full-size SDXL, component by component and as whole pictures
(benchmarks/results/2026-11-24-memory-epyc-2-cores.json).
"""

from collections.abc import Mapping
from math import ceil, log2

from ..folder.manifest import ComponentEntry, Streaming
from ..specs import Role
from .base import Footprint, Pool, Sizes
from .ort_providers import HALF
from .ort_segments import bytes_of
from .processor import adds_in_16_bits

# Beyond the weights: the graph, and copies in the layouts that kernels want. Float convolutions have whole copies,
# and the originals stay.
WEIGHT_OVERHEAD: Mapping[Role, float] = {Role.VAE_DECODER: 1.9, Role.VAE_ENCODER: 1.9, Role.UPSCALER: 1.9}
OTHER_WEIGHT_OVERHEAD = 1.04
# What weights in half precision take, of which ONNX Runtime makes float32 for a processor, the file's own pages among
# it. Measured on a VAE of SDXL's size (3.98, and 5.7 for a moment, which its working memory hides), and on a U-Net of
# 479 million parameters (2.43, and 3.14 while it is loaded).
HALF_WEIGHTS: Mapping[Role, float] = {Role.VAE_DECODER: 4.0, Role.VAE_ENCODER: 4.0}
OTHER_HALF_WEIGHTS = 3.2
# Where weights become unsigned, ONNX Runtime keeps them beside what it packs: 895 MB for 400 MB of int8.
UNSIGNED_COPIES = 1.25
# The arena grows by regions of doubling size, so it ends at a power of two; a third more than what is alive at once is
# what its gaps cost, and some is taken beside it, more with every picture. Eleven sizes of the VAE were 0.71 to 0.96 of
# this for one picture, four pictures up to 0.99.
ARENA_GAPS = 1.32
BESIDE_ARENA = 1.08
# ONNX Runtime's order of execution puts many `DequantizeLinear`s long before the products that they feed. Of all
# dequantized weights 0.52 to 0.63 were alive at once in the large text encoder, none in the conditioners.
DEQUANTIZED_AHEAD = 0.66
# Of a component that is streamed: its graphs, and what small things leave in the C library's heap.
STREAMED_BESIDE = 24 << 20
# From this share of integer products on, segments use their weights as they lie in the file.
PRODUCTS_OF_INT8 = 0.5


def footprint_of(entry: ComponentEntry, sizes: Sizes, pool: Pool) -> Footprint:
    """Of the whole component; what a U-Net's arena has grown to stays until it is released, others give theirs back."""
    role, activation = entry.spec.role, entry.activation
    alive = activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
    if pool == "device":  # from the graph's own sizes; not measured on a GPU
        weights, working = entry.weight_bytes, int(ARENA_GAPS * alive)
    else:
        weights, working = weights_of(entry), arena_bytes(2 * alive if is_half(entry) else alive)
    if role is not Role.CONDITIONER:
        working += int(DEQUANTIZED_AHEAD * activation.dequantized_bytes)
    return Footprint(pool=pool, weights=weights, working=working, retained=working if role is Role.UNET else 0)


def weights_of(entry: ComponentEntry) -> int:
    """Bytes on the host from load to release."""
    role = entry.spec.role
    if is_half(entry):
        overhead = HALF_WEIGHTS.get(role, OTHER_HALF_WEIGHTS)
    else:
        overhead = WEIGHT_OVERHEAD.get(role, OTHER_WEIGHT_OVERHEAD)
    weights = int(overhead * entry.weight_bytes)
    if adds_in_16_bits():
        weights += int(UNSIGNED_COPIES * entry.int8_bytes)
    return weights


def streamed_footprint(entry: ComponentEntry, streaming: Streaming, sizes: Sizes) -> Footprint:
    """Of the component in segments; a call takes all of it, and leaves nothing."""
    alive, carried = (
        model.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        for model in (streaming.activation, streaming.carried)
    )
    weights = int(OTHER_WEIGHT_OVERHEAD * bytes_of(streaming.segments, together=2 if packs(entry) else 1))
    if adds_in_16_bits():
        share = entry.int8_bytes / entry.weight_bytes
        weights += int(UNSIGNED_COPIES * share * bytes_of(streaming.segments, together=2))
    # An arena that serves one run has not touched what it grew by too much.
    working = STREAMED_BESIDE + weights + int(ARENA_GAPS * alive) + carried
    return Footprint(pool="host", weights=0, working=working)


def packs(entry: ComponentEntry) -> bool:
    """Whether segments copy their weights for their kernels.

    Integer products are the same without, to the bit. Float ones are not on every processor, and lose more time.
    """
    return entry.int8_bytes < PRODUCTS_OF_INT8 * entry.weight_bytes


def arena_bytes(alive: int) -> int:
    """What ONNX Runtime's arena grows to for `alive` bytes at once."""
    return int(BESIDE_ARENA * 2 ** ceil(log2(ARENA_GAPS * alive))) if alive else 0


def is_half(entry: ComponentEntry) -> bool:
    """Whether a processor computes in float32 what is stored in half of it."""
    return HALF in entry.formats
