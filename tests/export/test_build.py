"""`pocketxl build`: the same weights give the same bytes in every form, builds resume, failed ones leave nothing."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import (
    IncompatibleError,
    IntegrityError,
    PocketXLError,
    QualityError,
    RequestError,
    StorageError,
)
from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.engine.specs import Role
from pocketxl.export.build import build
from pocketxl.export.checkpoint.weights import Weights
from pocketxl.export.components import Component
from pocketxl.export.publish import destination as destination_module
from pocketxl.export.publish import keys
from pocketxl.export.publish import workspace as publish
from pocketxl.export.publish.existing import find_engine
from pocketxl.export.publish.workspace import Workspace
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference import measure
from pocketxl.export.targets.rtx import process

from ..fixtures.builds import SHORT, allowed, components_made
from ..fixtures.command_line import files, run, start_command
from ..fixtures.original_layout import write_single_file

FP16 = RECIPES["fp16"]
# A builder that dies in the middle of its third component.
KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from pocketxl.export.publish import keys
from pocketxl.export.build import build
from pocketxl.export.publish.workspace import Workspace
from pocketxl.export.quantize.recipes import RECIPES, CalibrationSettings

def component(self, name, make, real=Workspace.component):
    if len(self.finished) == 2:
        (self.folder / name).mkdir(parents=True)
        (self.folder / name / "model.onnx").write_bytes(b"the first half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, name, make)

Workspace.component = component
RECIPES["fp32"] = replace(RECIPES["fp32"], calibration=CalibrationSettings(prompts=1, steps=2, watched=0))
keys.exporter_digest = lambda: sys.argv[3]
build(sys.argv[1], Path(sys.argv[2]), recipe="fp32")
"""


# One that dies when it has kept the first step of its reference run.
KILLED_IN_THE_REFERENCE = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from pocketxl.export.publish import keys
from pocketxl.export.build import build
from pocketxl.export.quantize.recipes import RECIPES, CalibrationSettings
from pocketxl.export.reference.store import ReferenceStore

def write_call(self, *call, real=ReferenceStore.write_call):
    real(self, *call)
    os.kill(os.getpid(), signal.SIGKILL)

ReferenceStore.write_call = write_call
RECIPES["fp32"] = replace(RECIPES["fp32"], calibration=CalibrationSettings(prompts=1, steps=2, watched=0))
keys.exporter_digest = lambda: sys.argv[3]
build(sys.argv[1], Path(sys.argv[2]), recipe="fp32")
"""

pytestmark = pytest.mark.usefixtures("quick_builds")


@pytest.fixture(scope="session")
def single_files(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("single")
    return {kind: write_single_file(folder, root / f"{kind}.safetensors") for kind, folder in tiny_folders.items()}


def settle(*paths: Path) -> None:
    """Date files back, so that their digests are kept (a file of this second could still be written)."""
    for path in paths:
        for file in [path] if path.is_file() else path.rglob("*"):
            os.utime(file, (time.time() - 100, time.time() - 100))


@pytest.mark.parametrize(
    ("recipe", "refiner"),
    [
        ("fp32", False),
        pytest.param("fp32", True, marks=pytest.mark.slow),
        pytest.param("int8", False, marks=pytest.mark.slow),
        ("int8", True),
    ],
)
def test_folder_and_single_file_build_the_same_bytes(
    recipe: str, refiner: bool, tiny_folders: dict[str, Path], single_files: dict[str, Path], tmp_path: Path
) -> None:
    folders, singles = tiny_folders, single_files
    build(folders["base"], tmp_path / "a", refiner=folders["refiner"] if refiner else None, recipe=recipe)
    other: dict[str, Any] = {"refiner": singles["refiner"], "refiner_config": folders["refiner"]} if refiner else {}
    build(singles["base"], tmp_path / "b", config=folders["base"], recipe=recipe, **other)
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert verify(tmp_path / "a").files == len(first)


@pytest.fixture
def engine(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    settle(tiny_folders["base"])
    build(tiny_folders["base"], tmp_path / "engine", recipe="fp32")
    return tmp_path / "engine"


def test_the_life_of_an_engine(
    engine: Path,
    tiny_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One engine through all that can happen to it, because each build costs seconds."""
    base, before = tiny_folders["base"], files(engine)
    command = ("build", base, "-o", engine, "--recipe", "fp32")

    with monkeypatch.context() as hit:  # a hit reads no weights, and says so
        hit.setattr(Weights, "tensor", lambda self, name: pytest.fail(f"read {name}"))
        hit.setattr(Weights, "_hash", lambda self, name: pytest.fail(f"hashed {name}"))
        assert "up to date" in run(capsys, *command).out
        (event,) = [e for e in run(capsys, *command, "--json").events() if e["event"] == "built"]
    assert (event["cached"], event["reasons"]) == (True, [])
    assert files(engine) == before

    with monkeypatch.context() as failing:  # every component is refused: each changed input says that it changed
        failing.setattr(Workspace, "component", lambda self, name, make: pytest.fail("built"))
        for change, reason in changes(tiny_folders, tmp_path):
            reasons = why(monkeypatch, engine, {"source": base, "recipe": "fp32", **change})
            assert any(reason in line for line in reasons), reasons

    with monkeypatch.context() as gated:  # a missed gate names layers; the engine stays
        strict = replace(RECIPES["int8-weight"], max_relative_error=allowed(RECIPES["fp32"], 1e-9))
        gated.setitem(RECIPES, "int8-weight", strict)
        with pytest.raises(QualityError, match=r"text_encoder.*worst layers") as missed:
            build(base, engine, recipe="int8-weight")
        assert missed.value.exit_code == 7
        assert "self_attn" in str(missed.value) or "mlp" in str(missed.value) or "embedding" in str(missed.value)
    assert files(engine) == before

    seen: list[dict[str, bytes]] = []

    def watched(new: Path, destination: Path, aside: Path) -> None:
        seen.append(files(destination))
        destination_module.swap(new, destination, aside)

    monkeypatch.setattr(publish, "swap", watched)
    shown = run(capsys, *command[:-1], "int8-weight")
    assert shown.status == 0, shown.err
    assert "recipe: fp32 -> int8-weight" in shown.out
    assert seen == [before]  # the old one was whole until the instant of the exchange
    assert read_manifest(engine).recipe == "int8-weight"
    assert sorted(p.name for p in tmp_path.iterdir() if ".building" in p.name) == []


def changes(folders: dict[str, Path], tmp_path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    yield {"recipe": "int8"}, "recipe: fp32 -> int8"
    yield {"refiner": folders["refiner"]}, "weights of refiner.unet"
    yield {"calibration_size": 32}, "configuration"
    for part, file in (
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("vae", "diffusion_pytorch_model"),
    ):
        copy = tmp_path / f"other-{part}"
        shutil.copytree(folders["base"], copy)
        weights = copy / part / f"{file}.safetensors"
        tensors = load_file(weights)
        name = min(tensors)
        tensors[name] = tensors[name] + torch.finfo(torch.float32).eps
        save_file(tensors, weights)
        yield {"source": copy}, f"weights of base.{part}"
    copy = tmp_path / "other-scheduler"
    shutil.copytree(folders["base"], copy)
    path = copy / "scheduler/scheduler_config.json"
    path.write_text(path.read_text().replace('"epsilon"', '"v_prediction"'))
    yield {"source": copy}, "configuration"


def why(monkeypatch: pytest.MonkeyPatch, engine: Path, options: dict[str, Any]) -> list[str]:
    """Why a build of these options would not take the engine that is there."""
    from pocketxl.export import build as module

    reasons: list[str] = []

    def watched(destination: Path, parts: Any, progress: Any) -> Any:
        found = find_engine(destination, parts, progress)
        assert found.manifest is None
        reasons.extend(found.reasons)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(module, "find_engine", watched)
        with pytest.raises(InterruptedError):
            build(destination=engine, **options)
    return reasons


def test_a_killed_build_goes_on_where_it_stopped(
    engine: Path, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    # With another number of threads sums round differently, and other tests have set this process's.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    whole, again = files(engine), tmp_path / "again"
    command = [sys.executable, "-c", KILLED, str(tiny_folders["base"]), str(again), keys.exporter_digest()]
    killed = subprocess.run(command, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert not again.exists()
    with components_made() as made:
        build(tiny_folders["base"], again, recipe="fp32")
    assert made == ["base/conditioner", "base/unet", "vae_decoder", "vae_encoder"]
    assert files(again) == whole


def test_a_build_killed_in_its_reference_run_goes_on_at_the_next_step(
    engine: Path, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from pocketxl.export.reference.streamed import StreamedModule

    # With another number of threads sums round differently, and other tests have set this process's.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    again, steps = tmp_path / "again", SHORT.prompts * SHORT.steps
    command = [sys.executable, "-c", KILLED_IN_THE_REFERENCE, str(tiny_folders["base"]), str(again)]
    for kept in range(1, steps + 1):
        killed = subprocess.run([*command, keys.exporter_digest()], check=False, timeout=300)
        assert killed.returncode == -signal.SIGKILL
        assert len(list((tmp_path / ".again.building/reference").glob("0.*.json"))) == kept
    call = StreamedModule.__call__

    def watched(self: StreamedModule, inputs: Any) -> Any:
        assert self.spec.role is not Role.UNET, "every step was kept"
        return call(self, inputs)

    monkeypatch.setattr(StreamedModule, "__call__", watched)
    build(tiny_folders["base"], again, recipe="fp32")
    assert files(again) == files(engine)
    assert not (tmp_path / ".again.building").exists()


def test_a_killed_build_does_not_pay_twice_for_the_reference_run(
    engine: Path, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketxl.export.reference import gate
    from pocketxl.export.reference.streamed import StreamedModule

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    again = tmp_path / "again"
    with monkeypatch.context() as patch:
        patch.setattr(gate, "check_pictures", killed)
        with pytest.raises(KeyboardInterrupt):
            build(tiny_folders["base"], again, recipe="fp32")
    assert not again.exists()
    call = StreamedModule.__call__

    def only_colours(self: StreamedModule, inputs: Any) -> Any:
        """What previews need of the VAE is no part of the reference run."""
        return call(self, inputs) if self.spec.role is Role.VAE_DECODER else pytest.fail("the reference ran again")

    monkeypatch.setattr(StreamedModule, "__call__", only_colours)
    build(tiny_folders["base"], again, recipe="fp32")
    assert files(again) == files(engine)
    assert not (tmp_path / ".again.building").exists()


def test_a_build_stopped_in_its_gate_does_not_measure_twice(
    engine: Path, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketxl.export.reference import gate

    again, real = tmp_path / "again", measure.figures_of
    measured: list[str] = []

    def stopped(folder: Path, component: Component, *rest: Any, **options: Any) -> Any:
        if len(measured) == 2:
            raise KeyboardInterrupt
        return noted(folder, component, *rest, **options)

    def noted(folder: Path, component: Component, *rest: Any, **options: Any) -> Any:
        measured.append(component.name)
        return real(folder, component, *rest, **options)

    def taken_away(*_: Any) -> Any:
        raise KeyboardInterrupt

    for place, name, fault in ((measure, "figures_of", stopped), (gate, "check_pictures", taken_away)):
        with monkeypatch.context() as patch:
            patch.setattr(measure, "figures_of", noted)
            patch.setattr(place, name, fault)
            with pytest.raises(KeyboardInterrupt):
                build(tiny_folders["base"], again, recipe="fp32")
    assert sorted(measured) == sorted(read_manifest(engine).components), "each once"
    monkeypatch.setattr(measure, "figures_of", lambda *_, **__: pytest.fail("measured twice"))
    monkeypatch.setattr(gate, "one_picture", lambda *_: pytest.fail("made twice"))
    build(tiny_folders["base"], again, recipe="fp32")
    assert files(again) == files(engine)
    assert not (tmp_path / ".again.building").exists()


def test_a_full_disk_is_told_with_the_place_and_leaves_nothing(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx_ir

    def full(model: Any, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"the first bytes")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(onnx_ir, "save", full)
    out = tmp_path / "engine"
    shown = run(capsys, "build", tiny_folders["base"], "-o", out, "--recipe", "fp32", "--json")
    assert shown.status == 5
    assert str(tmp_path) in shown.complaint()
    assert "free some space" in shown.complaint().lower()
    assert shown.events()[-1]["error"] == "StorageError"
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="POSIX limits")
def test_a_limit_on_file_sizes_is_a_full_disk_too(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """No monkeypatch: the operating system refuses to write past 1 MB, in the middle of a weight file."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from pocketxl.engine.commands.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "build",
        str(tiny_folders["base"]),
        "-o",
        str(tmp_path / "e"),
        "--recipe",
        "fp32",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 5, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert str(tmp_path) in ended.stderr
    assert not (tmp_path / "e").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_is_one_line_and_leaves_the_old_engine(
    tiny_engine: Path, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    engine = tmp_path / "engine"
    shutil.copytree(tiny_engine, engine)
    before = files(engine)
    with start_command("build", str(tiny_folders["base"]), "-o", str(engine), "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        finished = tmp_path / ".engine.building/state.json"
        while not finished.exists() or "text_encoder" not in finished.read_text():
            assert process.stdout.readline(), process.stderr.read()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        err = process.stderr.read()
    assert process.returncode == 130
    (line,) = err.splitlines()
    assert line.startswith(f"pocketxl: interrupted; what is finished is kept in {tmp_path / '.engine.building'}")
    assert files(engine) == before


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"source": "nowhere"}, StorageError, "does not exist"),
        ({"source": "pickle.ckpt"}, IntegrityError, "pickle"),
        ({"source": "pickle.bin"}, IntegrityError, "pickle"),
        ({"source": "renamed.safetensors"}, IntegrityError, "pickle"),
        ({"source": "cut.safetensors"}, IntegrityError, "fetch it again"),
        ({"source": "empty.safetensors"}, IntegrityError, "fetch it again"),
        ({"source": "sd15.safetensors"}, IncompatibleError, "Stable Diffusion 1"),
        ({"source": "lora.safetensors"}, IncompatibleError, "LoRA"),
        ({"source": "REFINER"}, IncompatibleError, "--refiner"),
        ({"--refiner": "BASE"}, IncompatibleError, "not as --refiner"),
        ({"--config": "BASE"}, IncompatibleError, "omit --config"),
        ({"--refiner-config": "BASE"}, RequestError, "refiner"),
        ({"--target": "toaster"}, RequestError, "rtx-sm89"),
        ({"--recipe": "fp8"}, RequestError, "int8-weight"),
        ({"--target": "rtx-sm75", "--recipe": "int4-weight"}, RequestError, "fp16"),
        ({"--calibration-size": "0"}, RequestError, "multiple of 8"),
        ({"--calibration-size": "100000000"}, RequestError, "2048"),
        ({"-o": "occupied"}, StorageError, "not an engine folder"),
        ({"-o": "pickle.ckpt"}, StorageError, "is a file"),
        ({"-o": "/proc/engine"}, StorageError, "/proc/"),
    ],
    ids=lambda value: " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_sources_and_options_are_one_clear_line(
    options: dict[str, str],
    kind: type[PocketXLError],
    says: str,
    tiny_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"BASE": str(tiny_folders["base"]), "REFINER": str(tiny_folders["refiner"])}
    bad_sources(tmp_path, tiny_folders["base"])
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    given = {"source": "BASE", "-o": "engine", "--recipe": "fp32", **options}
    source = names.get(given["source"], given.pop("source"))
    given.pop("source", None)
    shown = run(capsys, "build", source, *(names.get(x, x) for pair in given.items() for x in pair), "--json")
    assert (shown.status, shown.events()[-1]["error"]) == (kind.exit_code, kind.__name__)
    assert says in shown.complaint()
    assert {name: data for name, data in files(tmp_path).items() if not name.startswith("cache/")} == before


def bad_sources(folder: Path, base: Path) -> None:
    """What people give to a builder by mistake."""
    import torch
    from safetensors.torch import save_file

    for name in ("pickle.ckpt", "pickle.bin", "renamed.safetensors"):
        torch.save({"weight": torch.zeros(2)}, folder / name)
    whole = (base / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    (folder / "empty.safetensors").write_bytes(b"")
    unet = "model.diffusion_model."
    text = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    sd15 = {f"{unet}input_blocks.0.0.weight": (320, 4, 3, 3), text: (49408, 768)}
    sd15[f"{unet}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] = (320, 768)
    save_file({name: torch.zeros(shape) for name, shape in sd15.items()}, folder / "sd15.safetensors")
    lora = "lora_unet_down_blocks_1_attentions_0_proj_in.lora_"
    save_file(
        {f"{lora}down.weight": torch.zeros(4, 640), f"{lora}up.weight": torch.zeros(640, 4)},
        folder / "lora.safetensors",
    )
    (folder / "occupied").mkdir()
    (folder / "occupied/letter.txt").write_text("dear")


def test_json_events_come_in_the_order_of_the_stages(
    tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "build", tiny_folders["base"], "-o", tmp_path / "engine", "--recipe", "fp32", "--json")
    events = shown.events()
    assert (shown.status, shown.err) == (0, "")
    stages = list(dict.fromkeys(e["stage"] for e in events[:-1]))
    assert stages == [
        "read", "build", "lower", "reference", "check: pictures", "publish",
    ]  # fmt: skip
    for stage in stages:
        own = [e for e in events[:-1] if e["stage"] == stage]
        assert own[0]["step"] == 0
        assert own[-1]["done"]
        assert own[-1]["step"] == own[0]["total"] > 0, stage
        steps = [e["step"] for e in own]
        assert steps == sorted(steps)
    weights = sum(p.stat().st_size for p in tiny_folders["base"].rglob("*.safetensors"))
    assert 0.98 * weights < events[0]["total"] <= weights
    assert events[-1]["event"] == "built"
    assert events[-1]["reasons"] == [f"there is no engine at {tmp_path / 'engine'} yet"]


def test_a_tensorrt_engine_builds_without_a_gpu_and_is_held_to_the_reference_by_its_stand_in(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One engine through all of it, because each component takes TensorRT seconds."""
    import ctypes.util

    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(RECIPES, "fp16", replace(FP16, calibration=SHORT))  # with its own thresholds
    out = tmp_path / "engine"
    command = ("build", tiny_folders["base"], "-o", out, "--target", "rtx")
    held: list[str] = []
    real = measure.figures_of

    def stopped(path: Path, component: Component, *rest: Any, **options: Any) -> Any:
        if len(held) == 2:
            raise KeyboardInterrupt
        held.append(component.name)
        assert not path.is_relative_to(tmp_path / ".engine.building" / "engine")
        return real(path, component, *rest, **options)

    said: list[str] = []
    monkeypatch.setattr(process, "_TELL_EVERY", 0.1)
    with monkeypatch.context() as patch:  # it is interrupted before the third is held to the reference
        patch.setattr(measure, "figures_of", stopped)
        with pytest.raises(KeyboardInterrupt):
            build(tiny_folders["base"], out, target="rtx", progress=lambda event: said.append(event.detail))
    assert "text_encoder: compiling for 0 s" in said
    assert not out.exists()

    made: list[str] = []

    def noted(path: Path, component: Component, *rest: Any, **options: Any) -> Any:
        made.append(component.name)
        return real(path, component, *rest, **options)

    monkeypatch.setattr(measure, "figures_of", noted)
    shown = run(capsys, *command)
    assert shown.status == 0, shown.err
    assert made == ["base/conditioner", "base/unet", "vae_decoder", "vae_encoder"], (
        "figures of finished components are kept"
    )
    assert shown.out.count("of its stand-in in ONNX") == 6
    manifest = read_manifest(out)
    assert manifest.recipe == "fp16"
    for name, entry in manifest.components.items():
        assert entry.quality_of == "stand_in"
        assert 1e-6 < entry.quality["relative_error"] < FP16.max_relative_error[entry.spec.role], name
    assert not manifest.quality, "no pictures without the device"
    assert {p.suffix for p in out.glob("**/model.*")} == {".engine"}, "stand-ins are not published"
    assert not list(tmp_path.glob(".engine.building/aside"))

    assert run(capsys, "verify", out).status == 0
    shown = run(capsys, "inspect", out)
    assert "fp16 for rtx" in shown.out
    assert "for GPUs of the generations sm80, sm86, sm89, sm120, sm121" in shown.out
    shown = run(capsys, "plan", out)
    assert "predicted peak for 64x64" in shown.out
    assert re.search(r"6 GB +5\.25 GiB +yes +stays .* 1536x1536", shown.out), "as large as it was compiled for"
    assert "width is 1544, this engine takes 64 to 1536" in run(capsys, "plan", out, "--width", "1544").complaint()
    assert "tensorrt-rtx-cu12" in manifest.tools
    if ctypes.util.find_library("cuda") is None:
        shown = run(capsys, "generate", "a cat", "--engine", out, "-o", tmp_path / "x.png")
        assert shown.status == 3
        assert "GPU" in shown.complaint()


def test_a_stand_in_that_misses_its_threshold_fails_the_build(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(RECIPES, "fp16", replace(RECIPES["fp16"], max_relative_error=allowed(FP16, 1e-9)))
    with pytest.raises(QualityError, match="text_encoder: recipe fp16 is off by"):
        build(tiny_folders["base"], tmp_path / "engine", target="rtx-sm89")
    assert not (tmp_path / "engine").exists()


def test_the_help_names_the_default_recipe_of_each_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "build", "--help")
    shown = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # lines may end at a hyphen
    assert "(default: int8 for cpu, cuda; fp16 for onnx-fp16, rtx, tensorrt)" in shown
