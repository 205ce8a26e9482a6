"""What OpenVINO has compiled once is opened again, and is to the bit what it was."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.folder.files import KERNELS_SUFFIX, entry_of
from pocketxl.engine.folder.manifest import FILE_NAME, ActivationModel, ComponentEntry
from pocketxl.engine.runners import openvino_parts, openvino_session
from pocketxl.engine.runners.kernel_cache import MOST, KernelCache
from pocketxl.engine.runners.openvino import OpenVinoDevice, OpenVinoRunner
from pocketxl.engine.runners.ort import DATA_FILE, MODEL_FILE
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")

CHANNELS, DEPTH = 64, 6
SPEC = ComponentSpec(
    role=Role.UNET,
    inputs=(TensorSpec(name="latents", dtype="float32", shape=("batch", CHANNELS, "height", "width")),),
    outputs=(TensorSpec(name="prediction", dtype="float32", shape=("batch", CHANNELS, "height", "width")),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Residual convolutions, their weights in a file of their own."""
    write(tmp_path / "engine", seed=0)
    (tmp_path / "engine" / FILE_NAME).write_text("{}")
    return tmp_path / "engine"


def write(folder: Path, seed: int) -> None:
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    shape: list[str | int | None] = ["batch", CHANNELS, "height", "width"]
    nodes, weights, value = [], [], "latents"
    for block in range(DEPTH):
        weight = (random.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 30).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight{block}"))
        nodes.append(helper.make_node("Conv", [value, f"weight{block}"], [f"inner{block}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Tanh", [f"inner{block}"], [f"bent{block}"]))
        after = "prediction" if block == DEPTH - 1 else f"hidden{block}"
        nodes.append(helper.make_node("Add", [value, f"bent{block}"], [after]))
        value = after
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("latents", "prediction")]
    graph = helper.make_graph(nodes, "network", edges[:1], edges[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / MODEL_FILE, save_as_external_data=True, location=DATA_FILE)


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sizes that were compiled, each in two parts."""
    made: list[Any] = []
    compile = openvino_session.OpenVinoSession._compiled_parts

    def counted(self: Any, shapes: Any) -> Any:
        made.append(shapes["latents"][-1])
        return compile(self, shapes)

    monkeypatch.setattr(openvino_session.OpenVinoSession, "_compiled_parts", counted)
    monkeypatch.setattr(openvino_parts, "PART_OPERATIONS", 10)
    monkeypatch.setattr(openvino_parts, "MOST_PARTS", 2)
    return made


def answer(folder: Path, side: int = 8, threads: int = 1) -> np.ndarray:
    """Of a process that has just begun."""
    entry = ComponentEntry(
        spec=SPEC,
        runner="openvino",
        files=tuple(entry_of(folder, name) for name in (MODEL_FILE, DATA_FILE)),
        weight_bytes=(folder / DATA_FILE).stat().st_size,
        activation=ActivationModel(terms={"batch*pixels": 10.0}),
    )
    runner = OpenVinoRunner(folder, "base/unet", entry, OpenVinoDevice(threads=threads))
    latents = np.random.default_rng(side).standard_normal((1, CHANNELS, side, side), dtype=np.float32)
    try:
        return np.asarray(runner({"latents": latents})["prediction"])
    finally:
        runner.release()


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(KERNELS_SUFFIX)]


def test_the_second_time_it_is_opened_and_answers_the_same(folder: Path, compiled: list[Any]) -> None:
    first = answer(folder)
    assert np.array_equal(answer(folder), first)
    assert compiled == [8]
    (file,) = kept(folder)
    assert file.stat().st_size < 0.5 * (folder / DATA_FILE).stat().st_size, "its weights are in the engine's own file"


def test_each_size_and_number_of_threads_has_its_own_and_the_last_ones_stay(folder: Path, compiled: list[Any]) -> None:
    answer(folder)
    answer(folder, threads=2)
    assert compiled == [8, 8]
    for side in range(9, 9 + MOST):
        answer(folder, side)
    assert len(kept(folder)) == MOST
    answer(folder, 8 + MOST)
    answer(folder)
    assert compiled == [8, 8, *range(9, 9 + MOST), 8]


def test_other_weights_are_compiled_anew(folder: Path, compiled: list[Any]) -> None:
    first = answer(folder)
    write(folder, seed=1)
    second = answer(folder)
    assert compiled == [8, 8]
    assert not np.allclose(first, second)


def test_another_way_to_cut_is_compiled_anew(
    folder: Path, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(folder)
    monkeypatch.setattr(openvino_parts, "MOST_PARTS", 1)
    assert np.array_equal(answer(folder), first)
    assert compiled == [8, 8]


def test_nothing_comes_into_a_folder_that_is_being_built(folder: Path, compiled: list[Any]) -> None:
    (folder / FILE_NAME).unlink()
    first = answer(folder)
    assert np.array_equal(answer(folder), first)
    assert compiled == [8, 8]
    assert not kept(folder)


@pytest.mark.parametrize("damage", ["flipped", "cut off", "of another library", "no parts"])
def test_what_is_damaged_or_strange_is_compiled_anew(
    damage: str, folder: Path, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(folder)
    (file,) = kept(folder)
    content = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(content[:-10] + bytes([content[-10] ^ 1]) + content[-9:])
    elif damage == "cut off":
        file.write_bytes(content[:-10])
    else:  # this user's own, and so believed
        strange = b"\0" * 100 if damage == "no parts" else of_another_library(content)
        monkeypatch.setattr(KernelCache, "read", lambda self: strange)
    assert np.array_equal(answer(folder), first)
    assert compiled == [8, 8]


def of_another_library(content: bytes) -> bytes:
    """Whole, but compiled by an OpenVINO that is not here."""
    arrays = dict(np.load(BytesIO(content)))
    blobs = arrays["blobs"].tobytes()
    assert b"ov=20" in blobs
    arrays["blobs"] = np.frombuffer(blobs.replace(b"ov=20", b"ov=19"), np.uint8)
    made = BytesIO()
    np.savez(made, edges=arrays["edges"], blobs=arrays["blobs"])
    return made.getvalue()


def test_without_a_cache_that_can_be_written_nothing_is_kept(
    folder: Path, compiled: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    first = answer(folder)
    assert np.array_equal(answer(folder), first)
    assert compiled == [8, 8]
    assert not kept(folder)
