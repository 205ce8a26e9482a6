"""Whatever makes the library refuse an engine is one sentence with the fix."""

import platform
import re

import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError, PocketXLError
from pocketxl.engine.runners.tensorrt_refusal import SENTENCES

from ...fixtures.cuda_on_host import HostDriver
from ...fixtures.tensorrt_on_host import EngineInvalidityDiagnostics, ICudaEngine, IExecutionContext, Library
from .conftest import MakeRunner
from .test_tensorrt import has_driver
from .test_tensorrt_engine import X, use


def refused(make_runner: MakeRunner) -> PocketXLError:
    runner = make_runner()
    with pytest.raises(PocketXLError) as caught:
        runner.load()
    assert not runner.loaded
    return caught.value


@pytest.mark.parametrize(
    ("diagnosis", "says"),
    [
        ("VERSION_MISMATCH", r"another version of TensorRT for RTX than the 1\.7\.1\.116.*install the version"),
        ("UNSUPPORTED_CC", r"other GPUs than this host memory \(compute capability 8\.9\).*--target rtx-sm89"),
        ("OLD_CUDA_DRIVER", r"driver serves CUDA 12\.9 and is too old.*update the driver"),
        ("OLD_CUDA_RUNTIME", "update the package"),
        ("MALFORMED_ENGINE", "is no engine of TensorRT for RTX.*build it again"),
        ("CUDA_ERROR", "does not work as installed; start the machine again"),
    ],
)  # fmt: skip
def test_each_diagnosis_has_its_sentence(make_runner: MakeRunner, library: Library, diagnosis: str, says: str) -> None:
    library.diagnostics = EngineInvalidityDiagnostics[diagnosis]
    error = refused(make_runner)
    assert isinstance(error, IncompatibleError)
    assert re.search(says, str(error)), error
    assert "\n" not in str(error)


def test_no_diagnosis_is_without_a_sentence() -> None:
    assert {*SENTENCES, "INSUFFICIENT_GPU_MEMORY"} == set(EngineInvalidityDiagnostics.__members__)


def test_of_several_the_first_thing_to_mend_is_said(make_runner: MakeRunner, library: Library) -> None:
    library.diagnostics = EngineInvalidityDiagnostics.OLD_CUDA_DRIVER | EngineInvalidityDiagnostics.VERSION_MISMATCH
    assert "update the driver" in str(refused(make_runner))


@pytest.mark.parametrize(
    ("capability", "advice"),
    [
        ((6, 1), "build with --target onnx-fp16 or cpu"),
        ((9, 0), "build with --target cuda, or on this machine with --target tensorrt"),
        ((10, 0), "build on this machine with --target tensorrt"),
    ],
)
def test_a_card_that_the_library_does_not_know_is_sent_to_what_does(
    make_runner: MakeRunner, library: Library, driver: HostDriver, capability: tuple[int, int], advice: str
) -> None:
    library.diagnostics, driver.capability = EngineInvalidityDiagnostics.UNSUPPORTED_CC, capability
    number = "{}.{}".format(*capability)
    assert f"no kernels for this host memory (compute capability {number}); {advice}" in str(refused(make_runner))


def test_too_little_memory_is_said_with_the_figures(
    make_runner: MakeRunner, library: Library, driver: HostDriver
) -> None:
    library.diagnostics = EngineInvalidityDiagnostics.INSUFFICIENT_GPU_MEMORY
    driver.memory_of_others = driver.total - 20_000_000
    error = refused(make_runner)
    assert isinstance(error, MemoryBudgetError)
    assert "has 0.02 GB free; give a smaller --budget" in str(error)


def test_what_the_library_does_not_explain_is_told_in_its_own_words(make_runner: MakeRunner, library: Library) -> None:
    library.diagnostics, library.says = 128, "Internal error: no luck\ntoday"
    assert "cannot open" in (message := str(refused(make_runner)))
    assert "Internal error: no luck today" in message
    assert message.endswith(f"or build the engine again on {platform.system()}, if that was done elsewhere")


def test_a_call_that_does_not_run_says_why(make_runner: MakeRunner, library: Library) -> None:
    runner = make_runner()
    use(runner)
    library.runs, library.says = False, "enqueueV3: Cuda failure: an illegal instruction"
    with pytest.raises(IncompatibleError, match=r"base/unet: .*an illegal instruction; update the NVIDIA driver"):
        runner({"x": X, "constant": X})
    library.says = "Error Code 2: OutOfMemory (Requested size was 1 bytes.)"
    with pytest.raises(MemoryBudgetError, match="out of memory; make a smaller picture"):
        runner({"x": X, "constant": X})


def test_a_runtime_that_does_not_start_is_told_with_the_fix(
    make_runner: MakeRunner, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = library.module()

    def broken(logger: object) -> object:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module.Runtime = broken
    monkeypatch.setattr("pocketxl.engine.runners.tensorrt.import_tensorrt", lambda *_: module)
    assert "cannot start" in (message := str(refused(make_runner)))
    assert message.endswith("update the NVIDIA driver")


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_the_real_library_without_a_driver_is_refused_in_its_own_words(
    make_runner: MakeRunner, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("pocketxl.engine.runners.tensorrt.import_tensorrt", lambda *_: trt)
    error = refused(make_runner)
    assert isinstance(error, IncompatibleError)
    assert "is no engine of TensorRT for RTX" in str(error)  # the bytes are the stand-in's, too short for a header


def test_a_setting_that_is_not_taken_is_told_as_a_refusal(
    make_runner: MakeRunner, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_taken(engine: object) -> None:
        raise RuntimeError("Failed to set the strategy")

    monkeypatch.setattr(ICudaEngine, "create_runtime_config", not_taken)
    error = refused(make_runner)
    assert isinstance(error, IncompatibleError)
    assert "cannot open" in str(error)
    assert not library.driver.memory_now


@pytest.mark.parametrize("answer", [["hidden"], RuntimeError("no such shapes")], ids=["asks for more", "fails"])
def test_inputs_that_the_engine_does_not_know_are_told(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, answer: list[str] | RuntimeError
) -> None:
    def infer_shapes(context: object) -> list[str]:
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    monkeypatch.setattr(IExecutionContext, "infer_shapes", infer_shapes)
    with pytest.raises(IncompatibleError, match=r"base/unet: the engine .*(hidden|no such shapes).*build it again"):
        make_runner()({"x": X, "constant": X})
