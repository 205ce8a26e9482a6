"""The gate's figures, and that it names the layer that is to blame."""

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest

from pocketxl.engine.errors import QualityError
from pocketxl.engine.specs import Role
from pocketxl.export.quantize.choose import LayerError
from pocketxl.export.quantize.formats import W8A8_STATIC
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.gate import check_pictures, gate
from pocketxl.export.reference.parity import Figures, compare

from ..targets.cpu.lowering import noise

Arrays = dict[str, np.ndarray]


def figures(relative_error: float) -> Figures:
    return Figures(relative_error=relative_error, max_abs=1.0, psnr_db=20.0, samples=1)


def test_figures_of_a_known_difference() -> None:
    samples = [{"x": noise(4, 5, seed=i)} for i in range(3)]

    def off(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"y": inputs["x"] * np.float32(1.1)}

    result = compare(lambda s: {"y": s["x"]}, off, samples)
    x = np.stack([s["x"] for s in samples])
    assert result.samples == 3
    assert result.relative_error == pytest.approx(0.1, rel=1e-5)
    assert result.max_abs == pytest.approx(0.1 * np.abs(x).max(), rel=1e-4)
    span = float(x.max() - x.min())
    assert result.psnr_db == pytest.approx(20 * math.log10(span / (0.1 * math.sqrt((x**2).mean()))), abs=1e-3)
    json.dumps(result.to_json(), allow_nan=False)


def test_the_worst_output_counts() -> None:
    sample = {"x": noise(50)}
    result = compare(
        lambda s: {"key": 100 * s["x"], "value": s["x"]},
        lambda s: {"key": 100 * s["x"], "value": 0.5 * s["x"]},
        [sample],
    )
    assert result.relative_error == pytest.approx(0.5)


def test_equal_outputs_have_no_error_and_a_finite_psnr() -> None:
    result = compare(lambda s: {"y": s["x"]}, lambda s: {"y": s["x"]}, [{"x": noise(9)}])
    assert (result.relative_error, result.max_abs, result.psnr_db) == (0.0, 0.0, 200.0)


def test_gate_passes_at_the_limit() -> None:
    limit = RECIPES["int8"].max_relative_error[Role.UNET]
    gate("base/unet", Role.UNET, RECIPES["int8"], figures(limit))


@pytest.mark.parametrize("error", [0.9, math.inf, math.nan])
def test_gate_names_figures_and_layers(error: float) -> None:
    culprits = [LayerError(layer="mid_block.conv1", format=W8A8_STATIC, relative_error=0.8)]
    with pytest.raises(QualityError, match=r"refiner/unet.*int8.*0\.06.*refiner/unet:mid_block\.conv1 \(0\.8\)"):
        gate("refiner/unet", Role.UNET, RECIPES["int8"], figures(error), worst=culprits)


@pytest.mark.parametrize(
    ("recipe", "others", "layers", "advice"),
    [
        ("int8", ("int8", "int8-weight", "fp32"), True, "(--keep LAYER for each), or choose a more exact recipe "
                                                        "(--recipe int8-weight or fp32)"),
        ("int8-weight", ("int8", "int8-weight", "fp32"), False, "choose a more exact recipe (--recipe fp32)"),
        ("fp16", ("fp16",), False, "no recipe of this target is more exact: build for another"),
    ],
)  # fmt: skip
def test_a_missed_gate_advises_only_what_the_target_can_do(
    recipe: str, others: tuple[str, ...], layers: bool, advice: str
) -> None:
    culprits = [LayerError(layer="conv1", format=W8A8_STATIC, relative_error=0.8)] if layers else []
    possible = [RECIPES[name] for name in others]
    with pytest.raises(QualityError) as missed:
        gate("base/unet", Role.UNET, RECIPES[recipe], figures(0.9), others=possible, worst=culprits)
    assert str(missed.value).endswith(advice)
    picture = np.zeros((1, 16, 16, 3))
    with pytest.raises(QualityError) as dark:
        check_pictures(RECIPES[recipe], possible, picture, picture + 1)
    assert str(dark.value).endswith(advice.rpartition("or choose")[2].strip().removeprefix("choose "))


def test_nan_in_the_lowered_component_fails() -> None:
    broken = compare(lambda s: {"y": s["x"]}, lambda s: {"y": s["x"] * np.float32("nan")}, [{"x": noise(9)}])
    with pytest.raises(QualityError):
        gate("base/unet", Role.UNET, RECIPES["int8"], broken)
