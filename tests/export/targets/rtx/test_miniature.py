"""The trained miniature as an `rtx` engine, its refiner in float16: what each component compiled to."""

from pathlib import Path

import pytest

import pocketxl.export.miniature
from pocketxl.engine.compiled.read import read_compiled
from pocketxl.export.build import build
from pocketxl.export.targets.rtx.target import TOGETHER

pytest.importorskip("tensorrt_rtx")
WEIGHTS = Path(pocketxl.export.miniature.__file__).parent / "weights"
# Component → attentions that are one kernel (self and cross for each transformer block), and norms with SiLU in them.
WANTED = {
    "text_encoder": (1, 0),
    "text_encoder_2": (3, 0),
    "base/conditioner": (0, 0),
    "base/unet": (22, 23),
    "refiner/conditioner": (0, 0),
    "refiner/unet": (8, 23),
    "vae_decoder": (1, 12),
    "vae_encoder": (1, 7),
}


PRODUCTS = {
    "int8": {
        "base/unet": {("int8", "int8"), ("half", "half")},
        "text_encoder": {("int8", "int8")},
        "text_encoder_2": {("int8", "int8")},
        "vae_decoder": {("int8", "int8"), ("half", "half")},
    },
    "fp8": {
        "base/unet": {("fp8_e4m3", "fp8_e4m3"), ("half", "half")},
    },
}
CARDS = {"fp8": ("sm89", "sm120", "sm121")}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", PRODUCTS)
def test_every_component_of_the_smaller_recipes_passes_its_gate(recipe: str, references: Path, tmp_path: Path) -> None:
    """What each layer is multiplied in, and that no attention has come apart."""
    made = build(
        WEIGHTS / "base",
        tmp_path / "engine",
        target="rtx",
        recipe=recipe,
        calibration_size=128,
        reference=references,
    )
    for name, entry in made.manifest.components.items():
        compiled = read_compiled(tmp_path / "engine" / name / "model.engine")
        assert compiled is not None, name
        assert compiled.architectures == CARDS.get(recipe, TOGETHER), name
        assert compiled.attentions == WANTED[name][0], name
        rounded = compiled.attention_factors[("fp8_e4m3",) * 3]
        assert rounded == sum(layer.endswith(".attn1") for layers in entry.formats.values() for layer in layers), name
        assert {p.factors for p in compiled.products} == PRODUCTS[recipe].get(name, {("half", "half")}), name
        quantized = sum(len(layers) for format, layers in entry.formats.items() if format not in ("wf16", "wf32"))
        assert quantized > 0.3 * sum(map(len, entry.formats.values())), name


@pytest.mark.slow
def test_every_component_fuses_and_passes_its_gate(references: Path, tmp_path: Path) -> None:
    made = build(
        WEIGHTS / "base",
        tmp_path / "engine",
        refiner=WEIGHTS / "refiner",
        target="rtx",
        calibration_size=128,
        reference=references,
    )
    assert set(made.manifest.components) == set(WANTED)
    for name, entry in made.manifest.components.items():
        compiled = read_compiled(tmp_path / "engine" / name / "model.engine")
        assert compiled is not None, name
        assert compiled.architectures == TOGETHER, name
        assert (compiled.attentions, compiled.kernels["SiluGnor"]) == WANTED[name], name
        assert not {"CastSilu", "CastGnor"} & set(compiled.kernels), name
        assert {p.factors for p in compiled.products} == {("half", "half")}, name
        assert not compiled.allocates, name
        assert entry.activation.bytes_at(512 * 512, batch=1, steps=30) < compiled.arena_bytes, name
        assert entry.quality["relative_error"] < 1e-3, "of the stand-in: half precision in the weights"
