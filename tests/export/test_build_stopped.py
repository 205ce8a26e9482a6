"""A build that is killed or stopped goes on where it was, and pays for nothing twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.specs import Role
from pocketxl.export.build import build
from pocketxl.export.components import Component
from pocketxl.export.publish import keys
from pocketxl.export.reference import measure

from ..fixtures.builds import SHORT, components_made
from ..fixtures.command_line import files, start_command

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


def test_a_killed_build_does_not_look_for_smoothing_twice(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of components that are finished it is asked for once more, for the samples that an engine carries."""
    from pocketxl.export import lowering
    from pocketxl.export.quantize.smoothing import find_smoothing
    from pocketxl.export.reference import gate

    whole, again = tmp_path / "whole", tmp_path / "again"
    found: list[int] = []

    def noted(*arguments: Any) -> Any:
        made = find_smoothing(*arguments)
        found.append(len(made.rows))
        return made

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(lowering, "find_smoothing", noted)
    build(tiny_folders["base"], whole, recipe="int8")
    assert len(found) > 1
    assert any(found), "some have factors"
    once = len(found)
    with monkeypatch.context() as patch:
        patch.setattr(gate, "check_pictures", killed)
        with pytest.raises(KeyboardInterrupt):
            build(tiny_folders["base"], again, recipe="int8")
    assert len(found) == 2 * once
    monkeypatch.setattr(lowering, "find_smoothing", lambda *_: pytest.fail("looked for again"))
    build(tiny_folders["base"], again, recipe="int8")
    assert files(again) == files(whole)


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
