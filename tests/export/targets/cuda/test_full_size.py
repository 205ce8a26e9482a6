"""The published U-Nets at full size, 512 × 512, of random weights: calls against float32, and their kernels' source.

They have the numbers of a build of recipe `int8`, whose calibration is of the very inputs that they are then given. Two
things are held, since neither alone is a forward on a GPU: what the calls' ops give is as near to the module in float32
as the recipe asks, at every norm, attention and GEGLU on the way; and each kernel, of each shape that the network
launches it with, gives in Triton's interpreter what its op's reference gives of the same operands.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.random_checkpoint import CONFIGS, random_tensor
from pocketxl.engine.architecture import SizeIds, UNetArchitecture
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.program.program import Call
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.specs import Role
from pocketxl.export.checkpoint.unet_configuration import unet_architecture
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.calibrate import ROWS, watch
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets.cuda.component import Lowering, lowered
from pocketxl.export.targets.cuda.stored import Packer
from pocketxl.kernels.execute import execute
from pocketxl.kernels.launch import LaunchPlan

from ....fixtures.kernels import poisoned
from ....fixtures.networks import json_file
from ....tolerances import HALF_RELATIVE
from .calibrated import calibrated, layers_with
from .lowering import inputs_for, run

IDS = {"base": SizeIds.SIZE_CROP_TARGET, "refiner": SizeIds.SIZE_CROP_SCORE}
AT = Sizes(batch=1, height=64, width=64, tokens=77)
# Layers behind attention and GEGLU, which write int8 for them.
NARROWED = ("to_out.0", "ff.net.2")
# Sums in another order, then rounded to halves; of 8 bits, a number that lay between two steps.
ONE_ROUNDING, MOVED = 1, 0.02
LIMIT = RECIPES["int8"].max_relative_error[Role.UNET]


class RandomWeights:
    """What a checkpoint of random weights has, in halves, made anew whenever it is asked for."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(random_tensor(name, self._shapes[name])).half()


@dataclass(frozen=True)
class Network:
    architecture: UNetArchitecture
    weights: RandomWeights
    numbers: Quantization
    lowering: Lowering
    inputs: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    """In float32: the prediction, and in halves what norms and the layers behind attention and GEGLU are given."""

    def stored(self) -> dict[str, Tensor]:
        packer = Packer(self.weights, self.numbers)
        return {name: torch.from_numpy(packer.array(one).copy()) for name, one in self.lowering.stored.items()}


@pytest.fixture(scope="module", params=IDS)
def network(request: pytest.FixtureRequest) -> Network:
    data = json.loads((CONFIGS / request.param / "unet" / "config.json").read_text())
    architecture = unet_architecture(json_file(data), IDS[request.param])
    with torch.device("meta"):
        weights = RandomWeights(UNet(architecture))
    spec = architecture.unet()
    inputs = inputs_for(spec, AT)
    module = StreamedModule(lambda: UNet(architecture), spec, weights)
    with watch(module, ROWS) as seen:
        truth = watched(module.module, lambda: module({name: value.numpy() for name, value in inputs.items()}))
        numbers = calibrated(module.module, architecture, weights, seen.take())
    truth["prediction"] = torch.from_numpy(truth.pop("")["prediction"])
    behind = sum(name.endswith(NARROWED) for name in truth)
    assert layers_with(numbers) == (behind, behind // 3), "of a block's three such layers one is behind self-attention"
    master = export_master("unet", lambda: UNet(architecture), spec, dtype=torch.float16)
    return Network(architecture, weights, numbers, lowered(master, spec, numbers.format), inputs, truth)


@pytest.mark.full
def test_every_layer_is_what_the_module_gives_in_float32(network: Network) -> None:
    truth = network.truth
    apart = dict[str, float]()

    def seen(call: Call, plan: LaunchPlan, given: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> None:
        if call.layer in truth and "norm" in call.op:
            # A picture is pixel by pixel here; where two pictures are one norm's, one behind the other.
            whole = torch.cat([given[name] for name in ("x", "x2") if name in given], -1)
            apart[call.layer] = difference(whole, laid(truth[call.layer]))
        elif (reader := reader_of(call)) is not None:
            out = made["out"] / given["inverse"] if "inverse" in given else made["out"]
            apart[reader] = difference(out, truth[reader])

    found = run(network.lowering, network.stored(), network.inputs, AT, seen)["prediction"]
    apart["prediction"] = difference(found, truth["prediction"])
    calls = network.lowering.calls
    places = sum("norm" in call.op or reader_of(call) is not None for call in calls)
    assert len(apart) == places + 1, "each of them was looked at"
    assert apart["prediction"] < LIMIT
    # Behind the last of the base's sixty GEGLUs where pixels are fewest (measured 4.5 %; its end 1.3 %).
    worst = max(apart, key=apart.__getitem__)
    assert apart[worst] < LIMIT, (worst, apart)


def reader_of(call: Call) -> str | None:
    """The layer that reads what an attention or GEGLU makes, in 8 bits of its steps or in halves."""
    if "attention" in call.op:
        return f"{call.layer}.to_out.0"
    return call.layer.replace("net.0.proj", "net.2") if call.op.startswith("geglu") else None


@pytest.mark.full
def test_every_kernel_in_the_interpreter_is_what_its_op_gives(network: Network) -> None:
    interpreted = dict[Any, str]()

    def seen(call: Call, plan: LaunchPlan, given: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> None:
        key = (call.op, tuple(sorted((name, str(value)) for name, value in call.shape.items())))
        if key in interpreted:
            return
        interpreted[key] = call.layer
        found = execute(plan, given, poisoned)
        for name, expected in made.items():
            assert_same(found[name], expected, f"{call.op} of {call.layer}: {name}")

    run(network.lowering, network.stored(), network.inputs, AT, seen)
    assert len(interpreted) > len({call.op for call in network.lowering.calls}), "ops have several shapes each"


def watched(module: torch.nn.Module, call: Callable[[], Any]) -> dict[str, Any]:
    """What norms and layers behind attention and GEGLU are given, by layer, in halves; the call's result under ''."""
    seen = dict[str, Any]()

    def hook(name: str) -> Callable[..., None]:
        def note(_: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            seen[name] = given[0].half()

        return note

    ends = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    hooks = [
        child.register_forward_pre_hook(hook(name))
        for name, child in module.named_modules()
        if isinstance(child, ends) or name.endswith(NARROWED)
    ]
    seen[""] = call()
    for one in hooks:
        one.remove()
    return seen


def laid(value: Tensor) -> Tensor:
    """Channels last."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def difference(found: Tensor, expected: Tensor) -> float:
    found, expected = found.float().flatten(), expected.float().flatten()
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def assert_same(found: Tensor, expected: Tensor, whose: str) -> None:
    assert found.dtype == expected.dtype
    if found.dtype == torch.int8:
        steps = (found.int() - expected.int()).abs()
        assert int(steps.max()) <= ONE_ROUNDING, whose
        assert float((steps > 0).float().mean()) < MOVED, whose
    else:
        assert difference(found, expected) < HALF_RELATIVE, whose
