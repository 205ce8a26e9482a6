"""OpenVINO's runner: any sizes, ended in a run, several calls at once, and what is refused."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketxl.engine.ending import Ended, Ending
from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ComponentEntry
from pocketxl.engine.runners import openvino, openvino_parts, openvino_session, processor
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.openvino import OpenVinoDevice, OpenVinoRunner
from pocketxl.engine.runners.ort import DATA_FILE, MODEL_FILE

from ...fixtures.networks import UNetPair, unet_pair
from ...tolerances import OPENVINO_UNET_RELATIVE

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def pair() -> UNetPair:
    return unet_pair("miniature")


@pytest.fixture(scope="module")
def folder(pair: UNetPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The U-Net in floats."""
    from pocketxl.export.graph.master import export_master
    from pocketxl.export.quantize.quantization import Quantization
    from pocketxl.export.quantize.recipes import RECIPES
    from pocketxl.export.targets import TARGETS

    made, spec = tmp_path_factory.mktemp("unet"), pair.architecture.unet()
    weights = type("Weights", (), {"tensor": staticmethod(pair.unet.state_dict().__getitem__)})()
    master = export_master("base/unet", lambda: type(pair.unet)(pair.architecture), spec)
    known = Quantization(recipe=RECIPES["fp32"], role=spec.role)
    TARGETS["openvino"].lower("base/unet", spec, master, weights, known, made, made)
    return made


@pytest.fixture(scope="module")
def entry(folder: Path, pair: UNetPair) -> ComponentEntry:
    from pocketxl.engine.folder.manifest import ActivationModel

    return ComponentEntry(
        spec=pair.architecture.unet(),
        runner="openvino",
        files=tuple(entry_of(folder, name) for name in (MODEL_FILE, DATA_FILE)),
        weight_bytes=sum(file.stat().st_size for file in folder.iterdir()),
        activation=ActivationModel(terms={"batch*pixels": 10.0}),
    )


@pytest.fixture
def unet(folder: Path, entry: ComponentEntry) -> Iterator[OpenVinoRunner]:
    runner = OpenVinoRunner(folder, "base/unet", entry, OpenVinoDevice(threads=1))
    yield runner
    runner.release()


def inputs(runner: OpenVinoRunner, height: int, width: int, tokens: int = 7) -> dict[str, np.ndarray]:
    sizes = {"batch": 1, "tokens": tokens, "height": height, "width": width}
    generator = np.random.default_rng(height)
    shapes = {t.name: [sizes[d] if isinstance(d, str) else d for d in t.shape] for t in runner.spec.inputs}
    return {t.name: generator.standard_normal(shapes[t.name]).astype(t.dtype) for t in runner.spec.inputs}


def module(pair: UNetPair, given: dict[str, np.ndarray]) -> np.ndarray:
    """What the U-Net itself gives."""
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    key_values = [tensor for name, tensor in tensors.items() if name.startswith("key_values")]
    found: np.ndarray = pair.unet(tensors["latents"], tensors["time_vectors"], key_values).numpy()
    return found


@pytest.mark.parametrize("parts", [1, 3])
def test_it_is_the_module_at_every_size(
    parts: int, unet: OpenVinoRunner, pair: UNetPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back and forth: it is compiled anew for each, and no size leaves anything behind."""
    monkeypatch.setattr(openvino_parts, "PART_OPERATIONS", 10)
    monkeypatch.setattr(openvino_parts, "MOST_PARTS", parts)
    for height, width, tokens in ((8, 8, 7), (16, 8, 7), (16, 8, 14), (8, 8, 7)):
        given = inputs(unet, height, width, tokens)
        expected = module(pair, given)
        found = np.asarray(unet(given)["prediction"])
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < OPENVINO_UNET_RELATIVE


def test_what_is_held_is_what_is_given(unet: OpenVinoRunner) -> None:
    given = inputs(unet, 8, 8)
    held = unet.hold({name: array for name, array in given.items() if name.startswith("key_values")})
    rest = {name: array for name, array in given.items() if not name.startswith("key_values")}
    assert np.array_equal(unet(rest, held)["prediction"], unet(given)["prediction"])


def test_outputs_are_the_caller_s(unet: OpenVinoRunner) -> None:
    first = np.asarray(unet(inputs(unet, 8, 8))["prediction"])
    kept = first.copy()
    unet({name: 2 * array for name, array in inputs(unet, 8, 8).items()})
    assert np.array_equal(first, kept)


def test_one_size_is_compiled_once(unet: OpenVinoRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    compile = openvino_session.OpenVinoSession._compile

    def counted(self: Any, shapes: Any) -> Any:
        made.append(shapes)
        return compile(self, shapes)

    monkeypatch.setattr(openvino_session.OpenVinoSession, "_compile", counted)
    for side in (8, 8, 16, 16, 8):
        unet(inputs(unet, side, side))
    assert [shapes["latents"][-1] for shapes in made] == [8, 16, 8]


def test_several_threads_at_several_sizes(unet: OpenVinoRunner) -> None:
    calls = [inputs(unet, side, side) for side in (8, 16, 8, 8)]
    expected = [np.asarray(unet(given)["prediction"]) for given in calls]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda given: np.asarray(unet(given)["prediction"]), calls))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_run_is_ended_in_its_middle(unet: OpenVinoRunner) -> None:
    before = np.asarray(unet(inputs(unet, 8, 8))["prediction"])
    large = inputs(unet, 96, 96)
    unet(large)  # compiles
    token = threading.Event()
    timer = threading.Timer(0.1, token.set)
    timer.start()

    def go_on() -> None:
        for _ in range(100):  # a call takes longer than it is between two looks at the token
            unet(large)

    with Ending(token).in_effect(), pytest.raises(Ended):
        go_on()
    assert np.array_equal(np.asarray(unet(inputs(unet, 8, 8))["prediction"]), before), "and it goes on"


def test_nothing_runs_that_was_ended_while_it_compiled(unet: OpenVinoRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    token = threading.Event()
    compile = openvino_session.OpenVinoSession._compile

    def slow(self: Any, shapes: Any) -> Any:
        token.set()
        threading.Event().wait(0.3)  # longer than between two looks at the token
        return compile(self, shapes)

    monkeypatch.setattr(openvino_session.OpenVinoSession, "_compile", slow)
    monkeypatch.setattr(openvino_session.OpenVinoSession, "run", lambda *_: pytest.fail("it ran"))
    with Ending(token).in_effect(), pytest.raises(Ended):
        unet(inputs(unet, 8, 8))


def test_an_altered_file_is_refused_before_anything_else(folder: Path, entry: ComponentEntry, tmp_path: Path) -> None:
    for name in (MODEL_FILE, DATA_FILE):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with (tmp_path / DATA_FILE).open("r+b") as file:
        file.write(b"\xff\xff")
    with pytest.raises(IntegrityError, match=DATA_FILE):
        OpenVinoRunner(tmp_path, "base/unet", entry, OpenVinoDevice(threads=1)).load()


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "count"])
def test_a_spec_that_is_not_the_models(change: str, folder: Path, entry: ComponentEntry) -> None:
    first, *others = entry.spec.inputs
    changed = {
        "name": (replace(first, name="noise"), *others),
        "shape": (replace(first, shape=("batch", 4, "height")), *others),
        "dtype": (replace(first, dtype="int64"), *others),
        "count": tuple(others),
    }[change]
    other = replace(entry, spec=replace(entry.spec, inputs=changed))
    runner = OpenVinoRunner(folder, "base/unet", other, OpenVinoDevice(threads=1))
    with pytest.raises(IntegrityError, match=r"base/unet: engine.json and the model disagree on the inputs"):
        runner(inputs(runner, 8, 8))


@pytest.mark.parametrize(
    ("machine", "flags", "refused"),
    [
        ("x86_64", {"avx2"}, True),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("x86_64", set(), False),  # Windows does not tell
        ("aarch64", {"asimddp"}, False),
    ],
)
def test_a_processor_that_is_known_to_lack_vnni(
    machine: str, flags: set[str], refused: bool, folder: Path, entry: ComponentEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For products of 8-bit numbers; floats are the same everywhere."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(processor, "_flags", lambda: frozenset(flags))
    eight_bits = replace(entry, formats={"w8a8_static_signed": ("a",)})
    for one in (entry, eight_bits):
        runner = OpenVinoRunner(folder, "base/unet", one, OpenVinoDevice(threads=1))
        if refused and one is eight_bits:
            with pytest.raises(IncompatibleError, match=r"base/unet: .* processors with VNNI .*--target cpu"):
                runner.load()
        else:
            runner.load()
        assert runner.loaded is not (refused and one is eight_bits)


def test_pages_that_stay_are_planned_for(unet: OpenVinoRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for gives_back in (True, False):
        monkeypatch.setattr(openvino, "GIVES_BACK", gives_back)
        found[gives_back] = unet.footprint(Sizes(rows=1, tokens=77, steps=1, pixels=4096)).weights
    assert found[False] - found[True] == pytest.approx(unet._entry.weight_bytes, abs=1)


def test_without_openvino(unet: OpenVinoRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(IncompatibleError, match=r"needs the package openvino; .*pip install -e '.\[openvino\]'"):
        unet.load()


@pytest.mark.parametrize(
    ("formats", "exact"), [({"wf32": ("a",)}, True), ({"wf32": (), "w8a8_static_signed": ()}, False)]
)
def test_only_an_engine_in_float32_asks_for_float32(
    formats: dict[str, tuple[str, ...]],
    exact: bool,
    folder: Path,
    entry: ComponentEntry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Elsewhere OpenVINO computes floats in what the processor is fastest in."""
    monkeypatch.setattr(openvino_session, "lacks_vnni", lambda: False)
    runner = OpenVinoRunner(folder, "base/unet", replace(entry, formats=formats), OpenVinoDevice(threads=1))
    runner.load()
    assert runner._session is not None
    assert ("INFERENCE_PRECISION_HINT" in runner._session._settings) is exact


@pytest.mark.parametrize(("limit", "without"), [("AVX512_CORE_VNNI", True), ("avx2", True), ("AVX512_CORE_AMX", False)])
def test_no_bfloat16_where_onednn_is_told_to_leave_it(
    limit: str, without: bool, folder: Path, entry: ComponentEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO itself would still choose it, and then has no fused attention."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(processor, "_flags", lambda: frozenset({"avx512_vnni", "avx512_bf16"}))
    monkeypatch.setattr(openvino_session, "lacks_vnni", lambda: False)
    eight_bits = replace(entry, formats={"w8a8_static_signed": ("a",)})
    runner = OpenVinoRunner(folder, "base/unet", eight_bits, OpenVinoDevice(threads=1))
    runner.load()
    assert runner._session is not None
    assert ("INFERENCE_PRECISION_HINT" in runner._session._settings) is without
    assert runner._in_bfloat16 is not without, "and the plan says so too"


def test_inputs_of_another_component(unet: OpenVinoRunner) -> None:
    from pocketxl.engine.errors import RequestError

    with pytest.raises(RequestError, match="base/unet: missing inputs"):
        unet({})


def test_a_child_process_loads_for_itself(unet: OpenVinoRunner) -> None:
    given = inputs(unet, 8, 8)
    before = np.asarray(unet(given)["prediction"])
    unet.leave_behind()
    assert not unet.loaded
    assert np.array_equal(np.asarray(unet(given)["prediction"]), before)


def test_what_it_takes_is_known_beforehand(unet: OpenVinoRunner) -> None:
    small, large = (unet.footprint(Sizes(rows=1, tokens=77, steps=1, pixels=pixels)) for pixels in (64**2, 128**2))
    assert small.weights == large.weights > unet._entry.weight_bytes
    assert large.working == 4 * small.working == large.retained
    assert not unet.loaded
