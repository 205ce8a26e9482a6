"""A small U-Net all the way: from its ONNX master to the runner, on a GPU that interprets our kernels' own source."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketxl.engine.models.unet import UNet
from pocketxl.engine.program.prepare import prepare
from pocketxl.engine.program.program import Program
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.formats import FLOAT16, W8A8_PICTURE, W8A8_TOKEN, Format, Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.cuda.component import lowered
from pocketxl.export.targets.cuda.stored import Packer
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.closed import all_variants

from ....fixtures.cuda_programs import binaries_of, fake_device
from ....fixtures.onnx_run import StateDict
from ....fixtures.small_programs import places, write_component
from ....fixtures.smallest import SMALLEST
from ....tolerances import HALF_RELATIVE
from .lowering import call, inputs_for, run

AT = Sizes(batch=2, height=7, width=6, tokens=77)
# The same roundings in another order: sums of float32 in tiles, norms in chunks.
SAME = 2e-3


def eight_bits(kind: Kind, layer: str) -> Format:
    if layer in ("conv_in", "conv_out"):
        return FLOAT16
    return W8A8_TOKEN if kind is Kind.LINEAR else W8A8_PICTURE


def halves(kind: Kind, layer: str) -> Format:
    return FLOAT16


@pytest.mark.slow
@pytest.mark.parametrize("formats", [eight_bits, halves], ids=lambda formats: formats.__name__)
def test_a_u_net_on_an_interpreted_gpu(formats, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    module, spec = UNet(SMALLEST).eval(), SMALLEST.unet()
    lowering = lowered(export_master("unet", lambda: UNet(SMALLEST), spec, dtype=torch.float16), spec, formats)
    packer = Packer(StateDict(module.state_dict()), Quantization(recipe=RECIPES["fp16"], role=spec.role))
    weights = {name: np.ascontiguousarray(packer.array(one)) for name, one in lowering.stored.items()}
    program = Program(inputs=lowering.inputs, outputs=lowering.outputs, calls=lowering.calls, weights=places(weights))
    arch = architecture(89)
    wanted = prepare(program, AT, arch).variants
    closed = dict.fromkeys(v for one in lowering.calls for v in all_variants(one.op, one.shape, arch))
    assert set(closed) >= set(wanted), "a build compiles all that any size asks for"
    specs, content = binaries_of(closed)
    entry = write_component(tmp_path, "base/unet", program, weights, {"89": specs}, content, spec=spec)

    runner = CudaRunner(tmp_path, "base/unet", entry, fake_device(1 << 28))
    inputs = inputs_for(spec, AT)
    held = runner.hold({name: value.numpy() for name, value in inputs.items() if name.startswith("key_values")})
    given = {name: value.numpy() for name, value in inputs.items() if not name.startswith("key_values")}
    found = torch.from_numpy(np.asarray(runner(given, held)["prediction"]))
    by_references = run(lowering, {n: torch.from_numpy(a) for n, a in weights.items()}, inputs, AT)["prediction"]
    truth = call(module, spec, inputs)["prediction"]
    if formats is halves:
        assert apart(found, by_references) < SAME
        assert apart(found, truth) < HALF_RELATIVE
    else:
        # A half that rounds another way moves a scale, and with it what lies between two steps: the two are apart by as
        # much as 8 bits cost (measured 0.94), but neither is further from the truth.
        assert apart(found, by_references) < 1.3 * apart(by_references, truth)
        assert apart(found, truth) < 1.2 * apart(by_references, truth)


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
