"""What a pixel costs: operations against the formula of attention, the fit against numbers that were put in."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import pixels
from benchmarks.cpu.cases import Case
from benchmarks.cpu.inputs import feeds_of
from benchmarks.cpu.job import MINIATURE, Model
from benchmarks.pixels import Measured, Operations, fit, operations


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(base=MINIATURE / "base", refiner=None, work=tmp_path, threads=1, scale=8)


@pytest.mark.parametrize("side", [64, 128])
def test_a_decoders_attention_is_two_products_over_all_its_pixels(model: Model, side: int) -> None:
    """Two products of `latents² · channels`, a multiplication and an addition each; nothing else is attention."""
    config = json.loads((model.folder("vae") / "config.json").read_text(encoding="utf-8"))
    feeds = feeds_of(model, Case(name="any", kind="vae", size=side))
    counted = operations(model, "vae", feeds)
    assert counted.attention == 2 * 2 * (side // 8) ** 4 * config["block_out_channels"][-1]


def test_what_is_no_attention_grows_with_the_pixels(model: Model) -> None:
    found = [operations(model, "vae", feeds_of(model, Case(name="any", kind="vae", size=side))) for side in (64, 128)]
    assert found[1].others == 4 * found[0].others


def test_the_fit_finds_the_rates_that_were_put_in() -> None:
    sizes = {512: (2.0, 9.0), 1024: (32.0, 36.0), 2048: (512.0, 144.0)}
    found = {
        size: Measured(
            pixels=size**2,
            operations=Operations(attention=attention, others=others),
            seconds=0.5 * attention + 0.25 * others,
        )
        for size, (attention, others) in sizes.items()
    }
    assert fit(found) == pytest.approx((0.5, 0.25))


def test_a_rate_is_never_negative() -> None:
    """Noise must not make attention give time back."""
    slower = {512: 4.0, 1024: 10.0}
    found = {
        size: Measured(
            pixels=size**2, operations=Operations(attention=size**4 / 1e9, others=size**2 / 1e6), seconds=seconds
        )
        for size, seconds in slower.items()
    }
    attention, others = fit(found)
    assert attention == 0
    assert others > 0


def test_a_run_on_the_miniature(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "pixels --system pocketxl-int8 --sizes 512 1024 --rounds 1 --threads 1"
    monkeypatch.setattr(sys, "argv", words.split())
    pixels.main()
    records = json.loads(capsys.readouterr().out.splitlines()[-1])["records"]
    seconds = {record["case"]: record["value"] for record in records if record["metric"] == "seconds"}
    assert set(seconds) == {"unet_512", "unet_1024", "vae_512", "vae_1024"}
    assert all(value > 0 for value in seconds.values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--sizes 512 520", "multiples of 64"),
        ("--sizes 512", "at least two"),
        ("--rounds 0", "--rounds is 0"),
        ("--base nowhere", "no diffusers folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pixels", *words.split()])
    with pytest.raises(SystemExit):
        pixels.main()
    assert told in capsys.readouterr().err
