"""ONNX Runtime's runner: ended in a run, out of memory, and a model that engine.json does not describe."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pocketxl.engine.ending import Ended, Ending
from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners import ort_session, processor
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.interruptible import run_interruptibly
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner
from pocketxl.engine.runners.ort_memory import UNSIGNED_COPIES

MANIFEST = read_manifest(FOLDER)


@pytest.fixture
def unet() -> Iterator[OrtRunner]:
    runner = OrtRunner(FOLDER, "base/unet", MANIFEST.components["base/unet"], OrtDevice(threads=1))
    yield runner
    runner.release()


def inputs(runner: OrtRunner, side: int) -> dict[str, np.ndarray]:
    sizes = {"batch": 1, "tokens": 77, "height": side, "width": side}
    return {
        tensor.name: np.ones([sizes[d] if isinstance(d, str) else d for d in tensor.shape], np.float32)
        for tensor in runner.spec.inputs
    }


def test_a_run_is_ended_in_its_middle(unet: OrtRunner) -> None:
    before = unet(inputs(unet, 8))["prediction"]
    token = threading.Event()
    timer = threading.Timer(0.2, token.set)  # such a run takes seconds
    timer.start()
    with Ending(token).in_effect(), pytest.raises(Ended):
        unet(inputs(unet, 192))
    assert np.array_equal(np.asarray(unet(inputs(unet, 8))["prediction"]), before), "and it goes on"


def test_ctrl_c_ends_a_run_in_its_middle() -> None:
    stopped = threading.Event()

    def work() -> None:
        signal.raise_signal(signal.SIGINT)  # Python handles it in the main thread, which waits for this one
        assert stopped.wait(60)

    # A process that was started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_interruptibly(work, stopped.set)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.is_set()


def test_work_outside_the_main_thread_that_nobody_can_end_is_done_there() -> None:
    seen: list[threading.Thread] = []
    thread = threading.Thread(target=lambda: run_interruptibly(lambda: seen.append(threading.current_thread()), print))
    thread.start()
    thread.join()
    assert seen == [thread]


_WITHOUT_MEMORY = """
import resource
from pathlib import Path
import numpy as np
from pocketxl.engine.errors import MemoryBudgetError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner

unet = OrtRunner(FOLDER, "base/unet", read_manifest(FOLDER).components["base/unet"], OrtDevice(threads=1))
unet.load()


def run(side):
    sizes = {"batch": 1, "tokens": 77, "height": side, "width": side}
    shapes = {tensor.name: [sizes.get(d, d) for d in tensor.shape] for tensor in unet.spec.inputs}
    return unet({name: np.ones(shape, np.float32) for name, shape in shapes.items()})


limits = resource.getrlimit(resource.RLIMIT_AS)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), limits[1]))
try:
    run(256)
except MemoryBudgetError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, limits)
print(np.isfinite(np.asarray(run(8)["prediction"])).all())
"""


def test_a_run_without_enough_memory() -> None:
    """In a process of its own: what other tests have left free in this one would do for it."""
    pytest.importorskip("resource", reason="limits of memory are POSIX's")
    command = [sys.executable, "-c", _WITHOUT_MEMORY]
    told, finite = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert re.search(r"base/unet.*pocketxl plan", told)
    assert finite == "True", "and it goes on"


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "count"])
def test_a_spec_that_is_not_the_models(change: str) -> None:
    entry = MANIFEST.components["base/unet"]
    first, *others = entry.spec.inputs
    changed = {
        "name": (replace(first, name="noise"), *others),
        "shape": (replace(first, shape=("batch", 9, "height", "width")), *others),
        "dtype": (replace(first, dtype="int64"), *others),
        "count": tuple(others),
    }[change]
    runner = OrtRunner(
        FOLDER, "base/unet", replace(entry, spec=replace(entry.spec, inputs=changed)), OrtDevice(threads=1)
    )
    with pytest.raises(IntegrityError, match=r"base/unet: engine.json and the model disagree on the inputs"):
        runner.load()
    assert not runner.loaded


def test_extreme_sums_are_exact_on_every_processor() -> None:
    """Without VNNI, products of uint8 and int8 are added in 16 bits with saturation unless the session is told."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from pocketxl.engine.runners.ort_session import session_options

    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    weight = numpy_helper.from_array(np.full((64, 4), 127, np.int8), "w")
    graph = helper.make_graph(
        [node], "extremes", [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 4])], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(onnxruntime, 1, patterns=True))
    (sums,) = session.run(None, {"x": np.full((1, 64), 255, np.uint8)})
    assert sums.tolist() == [[255 * 127 * 64] * 4]


def test_unsigned_weights_are_in_the_plan_where_they_are_needed(
    unet: OrtRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Sizes(rows=1, tokens=77, steps=1, pixels=64 * 64)
    taken = {}
    for needed in (False, True):
        monkeypatch.setattr("pocketxl.engine.runners.ort_memory.adds_in_16_bits", lambda needed=needed: needed)
        taken[needed] = unet.footprint(sizes).weights
    int8 = MANIFEST.components["base/unet"].int8_bytes
    assert 0.8 < int8 / MANIFEST.components["base/unet"].weight_bytes < 1
    assert taken[True] - taken[False] == int(UNSIGNED_COPIES * int8)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"avx2"}, True),
        ("AMD64", {"avx2", "avx512f"}, True),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("x86_64", {"avx512f", "avx512_vnni"}, False),
        ("x86_64", set(), True),
        ("aarch64", {"asimddp"}, False),
        ("arm64", set(), False),
    ],
)
def test_which_processors_saturate(
    machine: str, flags: set[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(processor, "_flags", lambda: frozenset(flags))
    assert processor.adds_in_16_bits() is expected


@pytest.mark.parametrize(("flags", "answer", "expected"), [
    ({"amx_int8"}, 0, True),
    ({"amx_int8"}, -1, False),  # a container that forbids the system call
    ({"avx512_vnni"}, 0, False),
])  # fmt: skip
def test_tiles_need_the_processor_and_the_system(
    flags: set[str], answer: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def __init__(self, *_: object, **__: object) -> None: ...

        def syscall(self, *numbers: int) -> int:
            assert numbers == (158, 0x1023, 18)  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
            return answer

    monkeypatch.setattr(processor, "_flags", lambda: frozenset(flags))
    monkeypatch.setattr("ctypes.CDLL", Library)
    assert processor.multiplies_in_tiles.__wrapped__() is expected


@pytest.mark.parametrize(("int8", "here", "expected"), [(True, True, True), (True, False, False), (False, True, False)])
def test_only_what_multiplies_in_int8_is_told_of_tiles(
    int8: bool, here: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In other graphs, what is not folded into a constant may be weights, cast anew at every call."""
    told = []

    class StopError(Exception): ...

    def settings(*_: object, tiles: bool, **__: object) -> object:
        told.append(tiles)
        raise StopError

    monkeypatch.setattr(ort_session, "multiplies_in_tiles", lambda: here)
    monkeypatch.setattr(ort_session, "session_options", settings)
    entry = MANIFEST.components["base/unet"]
    runner = OrtRunner(
        FOLDER, "base/unet", replace(entry, int8_bytes=entry.int8_bytes if int8 else 0), OrtDevice(threads=1)
    )
    with pytest.raises(IncompatibleError):  # what `load` makes of an error it does not know
        runner.load()
    assert told == [expected]
