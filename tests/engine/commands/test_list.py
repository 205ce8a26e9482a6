"""`pocketxl list`: every name that a call takes, for people and for programs."""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.commands.list import LISTS, command
from pocketxl.engine.errors import RequestError
from pocketxl.engine.presets.table import PRESETS
from pocketxl.engine.request.sizes import BUCKETS
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES, find_sampler, find_schedule

ROOT = Path(__file__).resolve().parents[3]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What the command prints; the installed entry points do not matter here."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.configure(parser)
    assert command.run(parser.parse_args([str(argument) for argument in arguments])) == 0
    return capsys.readouterr().out


def rows(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, Any]]:
    event = json.loads(shown(capsys, *arguments, "--json"))
    assert event["event"] == arguments[0]
    found: list[dict[str, Any]] = event[event["event"]]
    return found


def test_it_is_a_sub_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pocketxl.commands"]["list"] == "pocketxl.engine.commands.list:command"


@pytest.mark.parametrize(
    ("what", "names"),
    [("samplers", SAMPLERS), ("schedules", SCHEDULES), ("presets", PRESETS), ("sizes", BUCKETS)],
)
def test_all_of_them_in_both_forms(capsys: pytest.CaptureFixture[str], what: str, names: dict[str, Any]) -> None:
    assert [row["name"] for row in rows(capsys, what)] == list(names)
    lines = [line for line in shown(capsys, what).splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == list(names)


def test_what_is_listed_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    for row in rows(capsys, "samplers"):
        for spelling in (row["name"], row["label"], *row["aliases"]):
            assert find_sampler(spelling)[0].name == row["name"]
    for row in rows(capsys, "schedules"):
        assert find_schedule(row["label"]) == row["name"]


def test_people_see_what_costs_twice_and_where_numbers_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line.split()[0]: line for line in shown(capsys, "samplers").splitlines()}
    assert {name for name, line in lines.items() if "two evaluations" in line} == {"heun", "dpmpp_sde", "dpmpp_2s_a"}
    assert {name for name, line in lines.items() if "eta" in line} == {"ddim", "tcd"}
    presets = shown(capsys, "presets")
    assert "timesteps 999 749 499 249" in presets
    assert "see the model card of ByteDance/SDXL-Lightning" in presets
    assert "refiner off" in presets


def test_sizes_are_the_engine_s(capsys: pytest.CaptureFixture[str], tiny_engine: Path) -> None:
    usual = {row["name"]: (row["width"], row["height"]) for row in rows(capsys, "sizes")}
    assert usual["portrait"] == (832, 1216)
    assert usual["16:9"] == (1344, 768)
    small = {row["name"]: (row["width"], row["height"]) for row in rows(capsys, "sizes", "--engine", tiny_engine)}
    assert small["square"][0] < 1024


def test_styles_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text('name,prompt,negative_prompt\nsketch,"a sketch of {prompt}",photo\n')
    assert rows(capsys, "styles", "--styles-file", path) == [
        {"name": "sketch", "prompt": "a sketch of {prompt}", "negative_prompt": "photo"}
    ]
    assert shown(capsys, "styles", "--styles-file", path) == "sketch  a sketch of {prompt}\n"
    path.write_text("name,prompt\n")
    assert shown(capsys, "styles", "--styles-file", path) == ""


def test_wrong_words() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.configure(parser)
    with pytest.raises(argparse.ArgumentError, match="samplers"):
        parser.parse_args(["colours"])
    with pytest.raises(RequestError, match="--styles-file"):
        command.run(parser.parse_args(["styles"]))
    assert set(LISTS) >= {"samplers", "schedules", "presets", "sizes"}
