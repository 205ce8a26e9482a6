"""Conditioners as programs of our kernels: against their modules, with LoRAs, and what the U-Net takes over of them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.openings import pair_inputs
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.runners.adapted import Adapted
from pocketxl.engine.runners.base import Values
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.engine.runners.device import CudaArray
from pocketxl.export.components import Component
from pocketxl.export.quantize.formats import FLOAT16, W8, W8A8_TOKEN, Format

from ....fixtures.cuda_programs import driver_of, fake_device
from ....fixtures.onnx_run import StateDict
from ....fixtures.smallest import SMALLEST
from ....tolerances import HALF_RELATIVE
from .interpreted import Small, runner_of
from .lowering import call, miniature, module_of
from .test_program import apart
from .test_slots import merged, pairs_for

# Of time vectors, keys and values, relative. Halves: roundings. 8 bits: the recipes' own limit for conditioners;
# measured 0.007 with 8-bit weights, 0.010 with 8-bit inputs too.
ALLOWED = {FLOAT16: HALF_RELATIVE, W8: 0.02, W8A8_TOKEN: 0.02}
STEPS = (981.0, 500.5, 1.0)


def inputs_for(component: Component | Small, batch: int, tokens: int = 77) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    lengths = {"batch": batch, "tokens": tokens, "steps": len(STEPS)}
    given: dict[str, Any] = {
        tensor.name: random.standard_normal([d if isinstance(d, int) else lengths[d] for d in tensor.shape])
        for tensor in component.spec.inputs
    }
    given["timesteps"] = np.array(STEPS)
    given["time_ids"] = random.integers(0, 1024, given["time_ids"].shape)
    return {name: value.astype(np.float32) for name, value in given.items()}


def as_tensors(given: Values) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(value)) for name, value in given.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "format"),
    [("base", FLOAT16), ("base", W8A8_TOKEN), ("refiner", W8), ("refiner", W8A8_TOKEN)],
    ids=str,
)
def test_it_is_what_its_module_gives_with_and_without_a_lora(kind: str, format: Format, tmp_path: Path) -> None:
    component = miniature().components[f"{kind}/conditioner"]
    runner = runner_of(component, format, tmp_path, pairs=True)
    given = inputs_for(component, batch=2, tokens=154 if kind == "base" else 77)
    truth = call(module_of(component), component.spec, as_tensors(given))
    found = runner(given)
    assert found.keys() == truth.keys()
    for name, value in truth.items():
        assert found[name].dtype == np.float32
        assert apart(as_tensors(found)[name], value) < ALLOWED[format], name

    assert runner.openings is not None
    (graph,) = runner.openings.graphs
    shapes = runner.openings.shapes(graph.groups)
    assert {f"{kind}.weight" for kind in shapes} == {n for n in module_of(component).state_dict() if "weight" in n}
    pairs = pairs_for(shapes, size=0.3)
    added = {
        tensor.name: array
        for layer, both in pairs.items()
        for tensor, array in zip(pair_inputs(layer, shapes[layer]), both, strict=True)
    }
    opened = runner.opened(graph)
    changed = Adapted(open=opened, additions=opened.hold(added))(given)
    wanted = call(merged(component, pairs), component.spec, as_tensors(given))
    for name, value in wanted.items():
        assert apart(truth[name], value) > 0.1, "pairs do something"
        assert apart(as_tensors(changed)[name], value) < ALLOWED[format], name
    runner.device.close()


def smallest(device: Any, folder: Path) -> tuple[Small, CudaRunner, CudaRunner]:
    """A conditioner, its runner, and that of its U-Net on the same device."""
    torch.manual_seed(0)
    networks = {"conditioner": (Conditioner, SMALLEST.conditioner()), "unet": (UNet, SMALLEST.unet())}
    parts = [
        Small(
            name=f"base/{name}",
            module=partial(network, SMALLEST),
            spec=spec,
            weights=StateDict(network(SMALLEST).state_dict()),
        )
        for name, (network, spec) in networks.items()
    ]
    runners = [runner_of(part, FLOAT16, folder, device=device) for part in parts]
    return parts[0], runners[0], runners[1]


@pytest.mark.slow
def test_keys_and_values_stay_on_the_gpu_from_conditioner_to_u_net(tmp_path: Path) -> None:
    device = fake_device(1 << 28)
    small, conditioner, unet = smallest(device, tmp_path)
    given = inputs_for(small, batch=2)
    names = [tensor.name for tensor in SMALLEST.key_values()]
    there = conditioner(given, keep=names)  # the first call of all: nothing is left that could be taken for it
    here = conditioner(given)
    driver = driver_of(device)
    before = len(driver.downloads)
    conditioner(given, keep=names)
    assert len(driver.downloads) == before + len(SMALLEST.resnets()), "time vectors alone come to the host"
    for name in names:
        kept = there[name]
        assert isinstance(kept, CudaArray)
        assert (kept.shape, kept.dtype.name, kept.stored.name) == (here[name].shape, "float32", "float16")
        np.testing.assert_array_equal(np.asarray(kept), here[name])
    np.testing.assert_array_equal(there["time_vectors"], here["time_vectors"])

    latents = np.random.default_rng(1).standard_normal((2, 4, 6, 5)).astype(np.float32)
    changing = {"latents": latents, "time_vectors": np.asarray(here["time_vectors"])[1]}
    first = unet.hold({name: here[name] for name in names})
    by_the_host = unet(changing, first)["prediction"]
    first.release()
    uploads = len(driver.uploads)
    held = unet.hold({name: there[name] for name in names})
    assert len(driver.uploads) == uploads, "nothing crosses again"
    assert not any(there[name].address for name in names), "their memory is handed over"  # type: ignore[union-attr]
    captures = driver.captures
    np.testing.assert_array_equal(unet(changing, held)["prediction"], by_the_host)
    assert driver.captures == captures, "they lie where the first ones lay"
    held.release()
    device.close()


def test_what_the_host_works_on_cannot_be_held(tmp_path: Path) -> None:
    small, conditioner, _ = smallest(fake_device(1 << 28), tmp_path)
    with pytest.raises(RequestError, match="timesteps cannot be held"):
        conditioner.hold({"timesteps": inputs_for(small, batch=1)["timesteps"]})
