"""`docs/api.md` is what its generator makes of the docstrings, and nothing public is missing from it."""

import inspect

from docs import api
from pocketxl import engine


def test_the_page_is_up_to_date() -> None:
    assert api.PAGE.read_text(encoding="utf-8") == api.page(), "docs/api.md is stale; run: python docs/api.py"


def test_every_public_name_is_told() -> None:
    page = api.page()
    for name in engine.__all__:
        assert name.startswith("_") or f"### {name}\n" in page or f"| `{name}`" in page, name
    for name, method in inspect.getmembers(engine.Pipeline, inspect.isroutine):
        assert name.startswith("_") or f"#### Pipeline.{name}\n" in page, name
        assert name.startswith("_") or inspect.getdoc(method), name


def test_every_option_has_a_meaning() -> None:
    rows = [line for line in api.page().splitlines() if line.startswith("| `") and line.count(" | ") == 4]
    assert len(rows) > 20
    assert not [row for row in rows if row.endswith("|  |")]
