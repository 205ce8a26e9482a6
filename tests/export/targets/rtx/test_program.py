"""What compiled, read from engines' programs without a GPU.

The programs' form is not documented and was read for one version of the library. With another version read them again,
then change the version here.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from pocketxl.engine.compiled.arena import _symbols, arena_at
from pocketxl.engine.compiled.program import UNKNOWN
from pocketxl.engine.compiled.read import read_compiled
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.models.vae_encoder import VaeEncoder
from pocketxl.export.targets import sized_target
from pocketxl.export.targets.rtx.builder import Order, build_engine
from pocketxl.export.targets.rtx.heads import CHUNKS, MORE_CHUNKS
from pocketxl.export.targets.rtx.profiles import profiles
from pocketxl.export.targets.rtx.target import ARCHITECTURES, COMPILED_FILE, TOGETHER

from ....fixtures.networks import clip_pair, unet_pair, vae_pair
from ....fixtures.smallest import SMALLEST
from .lowering import Built, build

trt = pytest.importorskip("tensorrt_rtx")
UNET = SMALLEST.unet()
TURNED = "ReshTranReshMove"
"""What brings a key or a value into the layout of attention's kernel."""


def test_the_version_whose_form_is_known() -> None:
    assert trt.__version__.startswith("1.7.1"), "the engine's form may have changed: read it, then change this line"


def test_one_engine_is_for_all_from_ampere_on_and_one_for_one(unet_for_all: Built, tmp_path: Path) -> None:
    assert unet_for_all.compiled.architectures == TOGETHER
    pair = clip_pair(pooled=True)
    make = lambda: type(pair.ours)(pair.architecture)  # noqa: E731
    alone = build("text_encoder_2", pair.ours, make, pair.architecture.component(), tmp_path, "rtx-sm120")
    assert alone.compiled.architectures == ("sm120",)
    assert alone.compiled.attentions == alone.operators("Attention") == 3


def test_one_program_is_for_all_and_it_is_the_least_common_one(unet_for_all: Built, tmp_path: Path) -> None:
    """With Turing among them, the products of all others would lose their epilogues; so it has an engine of its own."""

    def kernels(*architectures: str) -> dict[str, int]:
        order = Order(
            component="base/unet",
            onnx=unet_for_all.onnx.with_name(COMPILED_FILE),
            profiles=profiles("base/unet", UNET),
            architectures=architectures,
            engine=tmp_path / "model.engine",
        )
        build_engine(order)
        made = read_compiled(order.engine)
        assert made is not None
        assert made.architectures == architectures
        return dict(made.kernels)

    ada, turing = kernels("sm89"), kernels("sm75")
    assert unet_for_all.compiled.kernels == ada
    assert kernels(*ARCHITECTURES) == turing != ada
    assert ada["FcAddAdd"] > turing["FcAddAdd"]


def test_halves_go_in_and_out_and_keys_and_values_are_not_converted(unet_for_all: Built) -> None:
    (program,) = (p for p in unet_for_all.compiled.programs if not p.fusion)
    edge = [t.name for t in (*UNET.inputs, *UNET.outputs)]
    assert {program.tensors[f"{name}.1"].type for name in edge} == {"half"}
    assert not [name for name in unet_for_all.compiled.kernels if name.startswith("CastReshTran")]


def test_turning_keys_and_values_to_attention_s_layout_is_not_a_thousandth_of_a_step_s_traffic(
    unet_for_all: Built,
) -> None:
    """So they are left in the layout that all targets have."""
    (program,) = (p for p in unet_for_all.compiled.programs if not p.fusion)
    lengths = {"batch": 2, "tokens": 77, "height": 128, "width": 128}
    symbols = _symbols(
        program, {t.name: tuple(d if isinstance(d, int) else lengths[d] for d in t.shape) for t in UNET.inputs}
    )
    traffic: Counter[str] = Counter()
    for operation in program.operations:
        for name in (*operation.inputs, *operation.outputs):
            if name in program.tensors:
                traffic[operation.name] += program.tensors[name].bytes_at(symbols) or 0
    assert unet_for_all.compiled.kernels[TURNED] == len(SMALLEST.key_values()) == 8
    numbers = sum(lengths["batch"] * lengths["tokens"] * int(t.shape[-1]) for t in SMALLEST.key_values())
    assert traffic[TURNED] == pytest.approx(2 * 2 * numbers, rel=0.01), "halves, read and written"
    assert traffic[TURNED] < 1e-3 * sum(traffic.values())


def test_every_attention_is_one_kernel(unet_for_all: Built) -> None:
    assert unet_for_all.compiled.attentions == unet_for_all.operators("Attention") == 8


def test_silu_is_part_of_the_norm_before_it(unet_for_all: Built) -> None:
    kernels = unet_for_all.compiled.kernels
    assert not [name for name in kernels if name.startswith(("CastSilu", "CastGnor"))]
    assert kernels["SiluGnor"] == 17
    assert kernels["Gnor"] == 4, "those before a transformer, which have no SiLU"


def test_norms_sum_up_in_float32(unet_for_all: Built) -> None:
    """The engine carries its norms' source: the first type is that of mean and variance."""
    found = re.findall(rb"tile_norm\w*<(\w+),", unet_for_all.engine.read_bytes())
    assert len(found) > 10
    assert set(found) == {b"__myln_float"}


def test_every_product_is_in_half_precision(unet_for_all: Built) -> None:
    products = unet_for_all.compiled.products
    assert {(p.kind, p.factors, p.result) for p in products} == {
        (kind, ("half", "half"), "half") for kind in ("corrltn", "fully_connected")
    }
    made_of = {layer for p in unet_for_all.compiled.programs for o in p.operations for layer in o.layers}
    assert {"Conv", "MatMul"} <= {node.op_type for node in unet_for_all.nodes}
    wanted = {str(node.name) for node in unet_for_all.nodes if node.op_type in ("Conv", "MatMul")}
    assert wanted <= made_of, "products are merged (queries, keys, values) and fused, and none is missing"


def test_weights_are_kept_in_half_precision_and_those_of_layer_norms_in_single(unet_for_all: Built) -> None:
    """To two thousandths: Turing's convolutions of 4 channels are filled up to 8."""
    weights = {name: p.numel() for name, p in UNet(SMALLEST).named_parameters()}
    single = sum(n for name, n in weights.items() if ".transformer_blocks." in name and ".norm" in name)
    kept = unet_for_all.compiled.constants
    assert kept["half"] == pytest.approx(2 * (sum(weights.values()) - single), rel=2e-3)
    assert kept["float"] == pytest.approx(4 * single, rel=0.1)
    assert set(kept) <= {"half", "float", "int32", "int64", "bool"}


def test_the_program_is_understood_whole(unet_for_all: Built) -> None:
    """A form that is not known shows as an unknown type or a kind of operation that nobody counts."""
    main = [p for p in unet_for_all.compiled.programs if not p.fusion]
    assert len(main) == 1
    used = {name for o in main[0].operations for name in (*o.inputs, *o.outputs) if o.kind != "shape_call"}
    assert [name for name in used if main[0].types((name,)) == (UNKNOWN,)] == []
    assert {o.kind for o in main[0].operations} <= {
        "cast", "corrltn", "fully_connected", "function", "reshape", "runtime_function", "runtime_fusion", "shape_call",
    }  # fmt: skip


def test_the_arena_at_the_largest_sizes_is_what_the_program_asks_for(unet_for_all: Built) -> None:
    """Computed from the shapes here, and by the builder there: to the byte."""
    largest = {name: most for name, (_, _, most) in profiles("base/unet", UNET).items()}
    assert arena_at(unet_for_all.compiled, largest) == unet_for_all.compiled.arena_bytes
    assert not unet_for_all.compiled.allocates


def test_the_arena_follows_the_sizes_and_the_plan_follows_the_arena(unet_for_all: Built) -> None:
    def shapes(batch: int, side: int) -> dict[str, tuple[int, ...]]:
        lengths = {"batch": batch, "tokens": 77, "height": side, "width": side}
        return {t.name: tuple(d if isinstance(d, int) else lengths[d] for d in t.shape) for t in UNET.inputs}

    plan = unet_for_all.lowered.activation
    for batch, side in ((1, 64), (2, 64), (2, 128)):
        arena = arena_at(unet_for_all.compiled, shapes(batch, side))
        assert arena is not None
        assert arena < unet_for_all.compiled.arena_bytes
        assert arena <= plan.bytes_at((8 * side) ** 2, batch=batch) <= 1.3 * arena


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_the_vae_s_wide_attention_is_not_whole_in_memory(part: str, tmp_path: Path) -> None:
    """One head of 264: scores of all 192² pixels would take 2.7 GB; in chunks an eighth of them is there at a time."""
    from pocketxl.engine.architecture import VaeArchitecture

    widths = (32, 264) if part == "decoder" else (8, 8, 8, 264)  # an engine takes eight pixels to one of the latents
    wide = VaeArchitecture(block_out_channels=widths, layers_per_block=1, norm_num_groups=8)
    kind, spec = (VaeDecoder, wide.decoder()) if part == "decoder" else (VaeEncoder, wide.encoder())
    side = 192 if part == "decoder" else 8 * 192
    made = build(f"vae_{part}", kind(wide), lambda: kind(wide), spec, tmp_path)
    pixels = 192 * 192
    assert made.operators("Attention") == CHUNKS
    assert made.compiled.attentions == 0
    assert not made.compiled.allocates
    (given,) = spec.inputs
    arena = arena_at(made.compiled, {given.name: (1, int(given.shape[1]), side, side)})
    assert arena is not None
    assert pixels * pixels / CHUNKS < arena < 2 * pixels * pixels


def test_an_engine_for_larger_pictures_says_what_they_take_and_cuts_attention_finer(tmp_path: Path) -> None:
    """Scores of 256² pixels, in 32 chunks, have fewer numbers at a time than those of 192² in 8."""
    from pocketxl.engine.architecture import VaeArchitecture

    wide = VaeArchitecture(block_out_channels=(32, 264), layers_per_block=1, norm_num_groups=8)
    target = sized_target("rtx-sm89", 2048)
    made = build("vae_decoder", VaeDecoder(wide), lambda: VaeDecoder(wide), wide.decoder(), tmp_path, target)
    assert made.lowered.ranges["height"] == made.lowered.ranges["width"] == (8, 256)
    assert made.operators("Attention") == MORE_CHUNKS
    pixels = 256 * 256
    arena = arena_at(made.compiled, {"latents": (1, 4, 256, 256)})
    assert arena is not None
    assert pixels * pixels / MORE_CHUNKS < arena < 8 * pixels * pixels / MORE_CHUNKS
    told = made.lowered.activation.bytes_at(64 * pixels, batch=1)
    assert arena <= told <= 1.1 * arena


def test_conditioner_and_vae_are_understood_too(tmp_path: Path) -> None:
    unet, vae = unet_pair("base"), vae_pair()
    torch.manual_seed(0)
    for name, module, spec in (
        ("base/conditioner", unet.conditioner, unet.architecture.conditioner()),
        ("vae_decoder", vae.ours, vae.architecture.decoder()),
        ("vae_encoder", VaeEncoder(vae.architecture), vae.architecture.encoder()),
    ):
        (tmp_path / name).mkdir(parents=True)
        architecture = unet.architecture if "conditioner" in name else vae.architecture
        made = build(name, module, lambda m=module, a=architecture: type(m)(a), spec, tmp_path / name)  # type: ignore[misc]
        largest = {key: most for key, (_, _, most) in profiles(name, spec).items()}
        assert arena_at(made.compiled, largest) == made.compiled.arena_bytes, name
        assert {p.factors for p in made.compiled.products} == {("half", "half")}, name
        assert not {"CastSilu", "CastGnor"} & set(made.compiled.kernels), name
