"""The reference run keeps single rows, whatever the size of a call, and goes on at the next step."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.folder.samples import Sample
from pocketxl.engine.progress import ProgressEvent, Silent
from pocketxl.engine.specs import ComponentSpec, Role, TensorSpec
from pocketxl.export.job import models_of, open_as, prepare, tokenizers_of
from pocketxl.export.quantize.recipes import RECIPES, CalibrationSettings
from pocketxl.export.reference import run
from pocketxl.export.reference.calibrate import Watch
from pocketxl.export.reference.store import ReferenceStore
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets import find_target

from ...fixtures.calibration import assert_equal

SPEC = ComponentSpec(
    role=Role.UNET,
    inputs=(TensorSpec(name="x", shape=("batch", 2)), TensorSpec(name="step", shape=(1,))),
    outputs=(TensorSpec(name="y", shape=("batch", 2)),),
)


def kept(calls: list[np.ndarray]) -> list[Sample]:
    module: Any = lambda inputs: {"y": 2 * inputs["x"]}  # noqa: E731
    runner = run.ReferenceRunner(name="base/unet", spec=SPEC, module=module, expected_rows=8, watch=Watch(1))
    for x in calls:
        runner({"x": x, "step": np.ones(1)})
    return runner.samples


def test_calls_of_two_rows_leave_the_same_samples_as_single_rows() -> None:
    rows = np.arange(16.0).reshape(8, 2)
    single, double = kept(np.split(rows, 8)), kept(np.split(rows, 4))
    assert len(single) == len(double) == run.SAMPLES
    for (x, y), (x2, y2), row in zip(single, double, rows[::2], strict=True):
        np.testing.assert_array_equal(x["x"], row[None])
        np.testing.assert_array_equal(x2["x"], row[None])
        np.testing.assert_array_equal(y["y"], 2 * row[None])
        np.testing.assert_array_equal(y2["y"], 2 * row[None])
        assert x2["step"].shape == (1,)


@pytest.mark.parametrize("fails_at", [0, 7, 13])
def test_a_run_that_was_cut_goes_on_at_the_next_step(
    fails_at: int, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    settings = CalibrationSettings(prompts=2, steps=6, watched=2)
    base = open_as(tiny_folders["base"], "base", None)
    target, recipe = find_target("cpu"), RECIPES["int8"]
    job = prepare(base, None, target=target, recipe=recipe, calibration_size=16, progress=Silent())
    models, tokenizers, real = models_of(job.assembly), tokenizers_of(job), StreamedModule.__call__
    made: list[int] = []
    events: list[ProgressEvent] = []

    def reference(folder: str, fails_at: int | None = None) -> run.Reference:
        def called(self: StreamedModule, inputs: Any) -> Any:
            if self.spec.role is Role.UNET:
                if len(made) == fails_at:
                    raise KeyboardInterrupt
                made.append(1)
            return real(self, inputs)

        monkeypatch.setattr(StreamedModule, "__call__", called)
        events.clear()
        store = ReferenceStore(tmp_path / folder, "key")
        return run.run_reference(
            models, tokenizers, job.assembly, settings, job.size, store, lambda event: events.append(event)
        )

    whole = reference("whole")
    assert len(made) == settings.prompts * settings.steps + 4 * settings.watched
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == sorted(
        f"{i}.{kind}" for i in range(6) for kind in ("json", "safetensors")
    )
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        reference("cut", fails_at)
    resumed = reference("cut")
    assert len(made) == settings.prompts * settings.steps + 4 * settings.watched, "no step was made twice"
    assert (events[0].total, events[-1].step) == (len(made) - fails_at, len(made) - fails_at)
    np.testing.assert_array_equal(resumed.pictures, whole.pictures)
    for name, calibration in whole.calibration.items():
        assert_equal(resumed.calibration[name], calibration)
    for name, samples in whole.samples.items():
        assert len(resumed.samples[name]) == len(samples)
        for actual, expected in zip(resumed.samples[name], samples, strict=True):
            for side in (0, 1):
                for tensor, array in expected[side].items():
                    np.testing.assert_array_equal(actual[side][tensor], array)
