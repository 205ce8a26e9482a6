"""Previews: the colours of latents, fitted to a VAE's own pictures, and where they can be had."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine.errors import IncompatibleError, RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.preview import Previews, coloured, fit_colours, swatches
from pocketxl.engine.sampling.denoise import Step

from ..fixtures.command_line import run

STEPS: dict[str, Any] = {"num_inference_steps": 12, "seed": 7, "output_type": "np"}


def test_a_linear_vae_is_found_exactly() -> None:
    latents = swatches(4)
    assert latents.shape == (1, 4, 32, 32)
    wanted = np.random.default_rng(3).uniform(-0.2, 0.2, (5, 3))
    pixels = np.einsum("nchw,cr->nrhw", latents, wanted[:4]) + wanted[4][None, :, None, None]
    found = fit_colours(latents, pixels.repeat(8, axis=2).repeat(8, axis=3))
    assert np.abs(np.array(found) - wanted).max() < 1e-3  # what the ridge takes
    shown = coloured(latents, found)
    assert shown.shape == (1, 32, 32, 3)
    assert np.abs(shown - (pixels.transpose(0, 2, 3, 1) / 2 + 0.5).clip(0, 1)).max() < 1e-3


def test_a_build_finds_them(tiny_engine: Path) -> None:
    colours = np.array(read_manifest(tiny_engine).models.latent_colours)
    assert colours.shape == (5, 3)
    with Pipeline.load(tiny_engine, threads=1) as pipe:
        latents = swatches(4)
        pictures = pipe.decode(latents, output_type="np").reshape(1, 32, 8, 32, 8, 3).mean((2, 4))
        # Random layers are far from linear: what is held to is that no other matrix would be nearer.
        shown = pipe.preview(latents, output_type="np")
        found = np.square(shown - pictures).mean()
        assert found < np.square(np.full_like(shown, pictures.mean()) - pictures).mean()


def test_the_miniature_s_steps_come_to_look_like_the_picture() -> None:
    """Its engine is older than the matrix, so that this one is fitted to the one picture inside."""
    with Pipeline.load(threads=1) as pipe:
        request = pipe.request("a red apple on a blue background", **STEPS)
        steps = pipe.sample(request, pipe.encode(request))
        shown = [pipe.preview(step, output_type="np")[0] for step in steps]
        picture = pipe("a red apple on a blue background", **STEPS).images[0]
    small = picture.reshape(16, 8, 16, 8, 3).mean((1, 3))
    like = [float(np.corrcoef(one.ravel(), small.ravel())[0, 1]) for one in shown]
    assert len(like) == 12
    assert like[-1] > 0.93
    assert like[2] > 0.55  # a quarter through, where the latents themselves are noise


def test_a_callback_may_ask_for_them_and_give_back_what_it_was_given() -> None:
    shown: list[Image.Image] = []

    def look(pipe: Pipeline, index: int, timestep: float, now: dict[str, Any]) -> dict[str, Any]:
        shown.extend(pipe.preview(now["denoised"]))
        return now

    with Pipeline.load(threads=1) as pipe:
        watched = pipe("an apple", callback_on_step_end=look, **STEPS).images
        assert np.array_equal(watched, pipe("an apple", **STEPS).images)
    assert [picture.size for picture in shown] == [(16, 16)] * 12


def test_other_things_are_refused_in_words() -> None:
    pipe = Pipeline.load(threads=1)
    for shown in (np.zeros((4, 16, 16), np.float32), np.zeros((1, 3, 16, 16), np.float32), "step"):
        with pytest.raises(RequestError, match=r"a preview is of a Step, or of latents \(n, 4, height, width\)"):
            pipe.preview(shown)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="output_type is 'latent'"):
        pipe.preview(np.zeros((1, 4, 16, 16), np.float32), output_type="latent")
    with pytest.raises(IncompatibleError, match="build it again for previews"):
        Previews(replace(pipe.models, latent_colours=()), None)(np.zeros((1, 4, 16, 16), np.float32))


def test_the_step_s_guess_is_what_the_latents_come_to() -> None:
    with Pipeline.load(threads=1) as pipe:
        request = pipe.request("an apple", num_inference_steps=4, seed=1, refiner=False)
        last: Step | None = None
        for last in pipe.sample(request, pipe.encode(request)):
            assert last.denoised.shape == last.latents.shape
    assert last is not None
    assert np.allclose(last.denoised, last.latents, atol=1e-4)


def test_the_command_line_writes_them_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview, out = tmp_path / "now.png", tmp_path / "out.png"
    asked = ("--steps", "7", "--seed", "1", "--preview", preview, "--preview-every", "3", "--json")
    shown = run(capsys, "generate", "an apple", "-o", out, *asked)
    assert shown.status == 0, shown.err
    events = [event for event in shown.events() if event["event"] == "preview"]
    assert [event["step"] for event in events] == [3, 6]
    assert all(event["path"] == str(preview) for event in events)
    with Image.open(preview) as picture:
        assert picture.size == (16, 16)
    assert json.dumps(events)
    assert {path.name for path in tmp_path.iterdir()} == {"now.png", "out.png"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--preview-every", "3"), "give --preview FILE too"),
        (("--preview", "x.png", "--preview-every", "0"), "--preview-every is 0; give a whole number from 1"),
        (("--preview", "OUT"), "--preview and --output are both"),
        (("--preview", "x.gif"), "x.gif"),
        (("--preview", "nowhere/x.png"), "nowhere"),
    ],
)
def test_flags_that_cannot_be_are_told_before_any_work(
    flags: tuple[str, ...],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(tmp_path / "out.png") if flag == "OUT" else flag for flag in flags]
    shown = run(capsys, "generate", "an apple", "-o", tmp_path / "out.png", *given)
    assert shown.status in (2, 5)
    assert says in shown.complaint()
    assert not (tmp_path / "out.png").exists()
