"""ONNX Runtime's providers: which one an engine gets, what is said where it is not here, and what stays in its memory.

No GPU is needed: for choosing and for starting, ONNX Runtime is a stand-in that says what it would on other machines;
binding is done for real, with the processor's memory as the provider's.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError, RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners import open_runners
from pocketxl.engine.runners.base import HostHeld, Sizes
from pocketxl.engine.runners.ort import OrtDevice, OrtRunner
from pocketxl.engine.runners.ort_binding import BoundHeld
from pocketxl.engine.runners.ort_providers import CPU, HALF, PROVIDERS, Provider, choose_provider
from pocketxl.engine.runners.ort_start import start_session
from pocketxl.export.quantize.formats import FLOAT16, FLOAT32

MANIFEST = read_manifest(FOLDER)
BOUND = replace(CPU, name="bound", memory="cpu")
"""The processor, with its inputs bound as a GPU's are."""
SIZES = Sizes(rows=1, tokens=77, steps=1, pixels=64 * 64)


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that ONNX Runtime has these providers beside the processor's."""

    def pretend(*identifiers: str) -> None:
        here = [*identifiers, CPU.identifier]
        monkeypatch.setattr("pocketxl.engine.runners.ort_providers._available", lambda: here)

    return pretend


def test_formats_are_called_as_in_manifests() -> None:
    from pocketxl.engine.runners import ort_providers

    assert (str(FLOAT16), str(FLOAT32)) == (ort_providers.HALF, ort_providers.FLOAT)


@pytest.mark.parametrize(
    ("here", "chosen"),
    [
        ((), "cpu"),
        (("AzureExecutionProvider",), "cpu"),
        (("CUDAExecutionProvider",), "cuda"),
        (("DmlExecutionProvider",), "directml"),
        (("DmlExecutionProvider", "CUDAExecutionProvider"), "cuda"),
    ],
)
def test_half_precision_gets_the_best_that_is_here(
    here: tuple[str, ...], chosen: str, having: Callable[..., None]
) -> None:
    having(*here)
    assert choose_provider(None, [HALF]).name == chosen
    assert choose_provider("cpu", [HALF]) is CPU


@pytest.mark.parametrize("formats", [["wf32"], ["w8a8_dynamic", "wf32"], []])
def test_others_stay_on_the_processor_without_a_look_at_what_there_is(
    formats: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose_provider(None, formats) is CPU


def test_float32_goes_elsewhere_when_asked(having: Callable[..., None]) -> None:
    having("CUDAExecutionProvider")
    assert choose_provider("cuda", ["wf32"]).name == "cuda"


def test_integers_do_not(having: Callable[..., None]) -> None:
    having("CUDAExecutionProvider")
    with pytest.raises(RequestError, match=r"provider is cuda, but .* w8a8_dynamic.* use provider cpu.*onnx-fp16"):
        open_runners(FOLDER, MANIFEST, provider="cuda")


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(RequestError, match="provider is 'rocm'; choose cuda, directml, tensorrt-rtx, openvino, cpu"):
        open_runners(FOLDER, MANIFEST, provider="rocm")


def test_an_engine_of_another_back_end_has_no_provider() -> None:
    components = {name: replace(entry, runner="tensorrt") for name, entry in MANIFEST.components.items()}
    other = replace(MANIFEST, target="rtx-sm89", components=components)
    with pytest.raises(RequestError, match="provider is 'cuda', but this engine is for rtx-sm89"):
        open_runners(FOLDER, other, provider="cuda")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("cuda", r"pip uninstall onnxruntime.*pip install -e '.\[ort-cuda\]'$"),
        ("directml", r"pip uninstall onnxruntime.*pip install -e '.\[ort-directml\]'$"),
        ("tensorrt-rtx", r"there is cpu\); install it .* '.\[ort-tensorrt-rtx\]'$"),
        ("openvino", r"there is cpu\); install it .* '.\[ort-openvino\]'$"),
    ],
)
def test_one_that_is_not_here_and_how_it_is_installed(
    name: str, fix: str, having: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    having()
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(IncompatibleError, match=f"provider {name} is not here .*{fix}"):
        choose_provider(name, [HALF])


def test_every_extra_that_is_named_exists() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert {provider.extra for provider in PROVIDERS.values()} <= set(project["optional-dependencies"])


class Options:
    """Of a session: takes everything, and keeps what tests ask about."""

    def __init__(self) -> None:
        self.devices: list[Any] = []
        self.told: dict[str, str] = {}
        self.enable_mem_pattern = True

    def add_session_config_entry(self, key: str, value: str) -> None:
        pass

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.devices, self.told = devices, options


class Runtime(SimpleNamespace):
    """ONNX Runtime on another machine: `starts` is what its sessions have, `devices` what its plug-ins find."""

    __version__ = "1.99"
    SessionOptions = Options
    GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL=99)
    OrtHardwareDeviceType = SimpleNamespace(CPU=0, GPU=1)

    def __init__(self, *, starts: list[str], devices: list[Any] | None = None, error: Exception | None = None) -> None:
        super().__init__(asked=None, settings=None, registered=[])
        self.starts, self.devices, self.error = starts, devices or [], error

    def set_default_logger_severity(self, level: int) -> None:
        pass

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9: no such file")  # noqa: T201 — as the real one does

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append((name, path))

    def get_ep_devices(self) -> list[Any]:
        return self.devices if self.registered else []

    def InferenceSession(self, model: str, options: Any, **given: Any) -> Any:  # noqa: N802
        if self.error is not None:
            raise self.error
        self.asked, self.settings = given, options
        return SimpleNamespace(get_providers=lambda: self.starts)


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Runtime, Provider], Any]:
    def start(runtime: Runtime, provider: Provider) -> Any:
        for module in ("ort_start", "ort_session"):
            monkeypatch.setattr(f"pocketxl.engine.runners.{module}.import_onnxruntime", lambda: runtime)
        return start_session(provider, Path("model.onnx"), 1, patterns=True)

    return start


def test_a_provider_gets_its_options_and_no_retreat(
    starting: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cuda = PROVIDERS["cuda"]
    runtime = Runtime(starts=[cuda.identifier, CPU.identifier])
    starting(runtime, cuda)
    assert runtime.asked == {
        "providers": [(cuda.identifier, dict(cuda.options)), CPU.identifier],
        "enable_fallback": 0,
    }
    assert capsys.readouterr().out == "", "a program may read our output"


def test_directml_has_no_memory_patterns(starting: Callable[..., Any]) -> None:
    runtime = Runtime(starts=[PROVIDERS["directml"].identifier, CPU.identifier])
    starting(runtime, PROVIDERS["directml"])
    assert runtime.settings.enable_mem_pattern is False


def test_a_provider_that_quietly_does_not_start(starting: Callable[..., Any]) -> None:
    """As ONNX Runtime 1.31 does for CUDA where a library of NVIDIA's is missing: it goes on with the processor."""
    with pytest.raises(IncompatibleError, match=r"cannot start cuda .*\(Failed to load libcudnn.*provider cpu$"):
        starting(Runtime(starts=[CPU.identifier]), PROVIDERS["cuda"])


def test_a_plug_in_takes_its_first_gpu(starting: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = PROVIDERS["openvino"]
    module = ModuleType(openvino.plug_in)
    module.get_library_path = lambda: "/there/plugin.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, openvino.plug_in, module)
    found = [
        SimpleNamespace(ep_name=name, device=SimpleNamespace(type=kind))
        for name, kind in (("CPUExecutionProvider", 0), (openvino.identifier, 0), (openvino.identifier, 1))
    ]
    runtime = Runtime(starts=[openvino.identifier, CPU.identifier], devices=found)
    for _ in range(2):
        starting(runtime, openvino)
        assert runtime.settings.devices == [found[2]]
    assert runtime.registered == [(openvino.identifier, "/there/plugin.so")], "once"
    with pytest.raises(IncompatibleError, match=r"cannot start openvino .*no device"):
        starting(Runtime(starts=[], devices=found[:1]), openvino)


@pytest.fixture
def runner() -> Iterator[Callable[[Provider], OrtRunner]]:
    made: list[OrtRunner] = []

    def make(provider: Provider, name: str = "base/unet") -> OrtRunner:
        device = OrtDevice(threads=1, provider=provider)
        made.append(OrtRunner(FOLDER, name, MANIFEST.components[name], device))
        return made[-1]

    yield make
    for one in made:
        one.release()


def inputs(runner: OrtRunner) -> dict[str, np.ndarray]:
    sizes, generator = {"batch": 1, "tokens": 77, "height": 8, "width": 8}, np.random.default_rng(0)
    return {
        tensor.name: generator.standard_normal(
            [sizes[d] if isinstance(d, str) else d for d in tensor.shape], dtype=np.float32
        )
        for tensor in runner.spec.inputs
    }


def test_what_is_bound_gives_the_same_numbers(runner: Callable[..., OrtRunner]) -> None:
    plain, bound = runner(CPU), runner(BOUND)
    given = inputs(plain)
    constant = {name: value for name, value in given.items() if name not in ("latents", "time_vectors")}
    changing = {name: given[name] for name in ("latents", "time_vectors")}
    held = bound.hold(constant)
    assert isinstance(held, BoundHeld)
    assert isinstance(plain.hold(constant), HostHeld), "the processor takes them as they are"
    for factor in (1, 2):  # bound once, good for every call
        now = {name: np.asarray(factor * value) for name, value in changing.items()}
        expected = plain({**now, **constant})["prediction"]
        assert np.array_equal(bound(now, held)["prediction"], expected)
    name = next(iter(constant))
    assert np.array_equal(np.asarray(held.arrays[name]), constant[name])
    wrong = {**changing, "latents": changing["latents"].astype(np.float64)}
    with pytest.raises(RequestError, match="latents is float64"):
        bound(wrong, held)
    held.release()
    with pytest.raises(RequestError, match="missing inputs"):
        bound(changing, held)


def test_rows_calls_and_memory_follow_the_provider(runner: Callable[..., OrtRunner]) -> None:
    processor, gpu = runner(CPU), runner(PROVIDERS["cuda"])
    assert (processor.rows, gpu.rows) == (1, 2)
    assert (processor.device.concurrent, gpu.device.concurrent) == (True, False)
    assert (processor.footprint(SIZES).pool, gpu.footprint(SIZES).pool) == ("host", "device")
    assert gpu.footprint(SIZES).weights == MANIFEST.components["base/unet"].weight_bytes
    assert "device" not in processor.device.overhead
    assert gpu.device.overhead["device"] > 0


def test_a_gpu_is_not_taken_across_a_fork(runner: Callable[..., OrtRunner]) -> None:
    with pytest.raises(IncompatibleError, match=r"base/unet .* across a fork"):
        runner(PROVIDERS["cuda"]).leave_behind()


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("CUDA failure 2: out of memory", MemoryBudgetError, "the GPU has not enough memory"),
        ("CUDA failure 35: driver too old", IncompatibleError, "cannot start cuda .*driver too old.*provider cpu"),
    ],
)
def test_what_a_provider_raises_while_it_loads(
    said: str, error: type[Exception], words: str, runner: Callable[..., OrtRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(said)

    monkeypatch.setattr("pocketxl.engine.runners.ort.start_session", fail)
    with pytest.raises(error, match=words):
        runner(PROVIDERS["cuda"]).load()


def test_half_precision_takes_more_of_a_processor_than_its_files(runner: Callable[..., OrtRunner]) -> None:
    """ONNX Runtime makes float32 of it when it loads it; a GPU takes it as it is."""
    entry = replace(MANIFEST.components["base/unet"], formats={HALF: ("conv_in",)}, int8_bytes=0)
    processor, gpu = (
        OrtRunner(FOLDER, "base/unet", entry, OrtDevice(threads=1, provider=provider)).footprint(SIZES)
        for provider in (CPU, PROVIDERS["cuda"])
    )
    assert processor.weights > 3 * entry.weight_bytes
    assert gpu.weights == entry.weight_bytes
    plain = replace(entry, formats={"wf32": ("conv_in",)})
    float32 = OrtRunner(FOLDER, "base/unet", plain, OrtDevice(threads=1)).footprint(SIZES)
    assert processor.working >= 2 * float32.working
