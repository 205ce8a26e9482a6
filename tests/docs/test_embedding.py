"""The Python on the pages is run as it is printed, block after block."""

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def test_embedding_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "embedding"}
    found = blocks("embedding.md")
    assert len(found) > 10
    for block in found:
        exec(compile(ast.parse(block), f"embedding.md: {block[:60]}", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"apple.png", "apple-1.png", "apple-2.png"}


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (DOCS / target).exists(), f"{page.name} links to {target}"
