"""An upscaler by itself, from Python."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine import Upscaler
from pocketxl.engine.errors import IncompatibleError, IntegrityError, RequestError
from pocketxl.engine.memory.resident import forget_resident_peak, resident_peak
from pocketxl.engine.miniature import engine_folder
from pocketxl.engine.progress import ProgressEvent
from pocketxl.engine.upscaler import TILE
from pocketxl.export.reference.steered import colours

from ...fixtures.upscalers import through


def test_a_picture_is_what_spandrel_makes_of_it(tiny_upscaler: tuple[Any, Path]) -> None:
    module, folder = tiny_upscaler
    picture = colours(40, 56)
    expected = (through(module, picture).clip(0, 1) * 255).round().astype(int)
    with Upscaler.load(folder, threads=1) as upscaler:
        assert (upscaler.name, upscaler.factor, len(upscaler.hash)) == ("4x-small", 4, 10)
        made = upscaler(Image.fromarray(picture))
        assert made.size == (224, 160)
        assert np.abs(np.asarray(made).astype(int) - expected).max() <= 1
        half = upscaler(picture, scale=2, output_type="np")
        smaller = Image.fromarray(np.asarray(made)).resize((112, 80), Image.Resampling.LANCZOS)
        assert np.array_equal(half, np.asarray(smaller))


def test_it_ends_between_tiles(tiny_upscaler: tuple[Any, Path]) -> None:
    cancel, seen = threading.Event(), []

    def progress(event: ProgressEvent) -> None:
        seen.append((event.stage, event.step, event.total))
        if event.step == 1:
            cancel.set()

    with Upscaler.load(tiny_upscaler[1], threads=1) as upscaler:
        assert upscaler(colours(40, 2 * TILE), progress=progress, cancel=cancel) is None
    assert {stage for stage, _, _ in seen} == {"upscale"}
    assert max(step for _, step, _ in seen) == 1
    assert {total for _, _, total in seen} == {3}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scale": 0.5}, "scale is 0.5; it must be 1 to 16"),
        ({"scale": "2"}, "scale is '2'; give a number"),
        ({"scale": float("nan")}, "scale is nan; give a finite number"),
        ({"output_type": "latent"}, "output_type is 'latent'; choose one of pil, np"),
        ({"picture": "photo.jpg"}, "picture is the text 'photo.jpg'; open it with PIL.Image.open"),
        ({"picture": np.zeros((4000, 6000, 3), np.uint8)}, "384000000 pixels would come out, at most 268435456"),
    ],
)
def test_a_bad_argument_is_one_clear_error(options: dict[str, Any], says: str, tiny_upscaler: tuple[Any, Path]) -> None:
    picture = options.pop("picture", colours(8, 8))
    with Upscaler.load(tiny_upscaler[1], threads=1) as upscaler, pytest.raises(RequestError, match=says):
        upscaler(picture, **options)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="is no upscaler; build one with `pocketxl build-upscaler`"):
        Upscaler.load(engine_folder(None))
    with pytest.raises(IntegrityError, match="is missing, so"):
        Upscaler.load(tmp_path)
    with pytest.raises(RequestError, match="upscaler is 7; give the folder"):
        Upscaler.load(7)  # type: ignore[arg-type]


def test_what_it_takes_is_predicted(tiny_upscaler: tuple[Any, Path]) -> None:
    with Upscaler.load(tiny_upscaler[1], threads=1) as upscaler:
        small, large = (upscaler.plan(TILE, width) for width in (TILE, 4 * TILE))
        pixels = 3 * TILE * TILE * upscaler.factor**2
        assert pixels * 3 < large - small < pixels * 64, "pictures grow, tiles do not"
        if not forget_resident_peak():
            return
        before = resident_peak() or 0
        upscaler(colours(TILE, 2 * TILE), scale=2)
        taken = (resident_peak() or 0) - before
        assert taken <= upscaler.plan(TILE, 2 * TILE, 2) - (150 << 20)
