"""One dialect of docstrings: prose with single backticks. What a linter knows of it is in `pyproject.toml`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("kernels", "engine", "export", "benchmarks", "tests")
SECTION = re.compile(r"^\s*(Args|Arguments|Parameters|Attributes|Returns|Yields|Raises|Notes?|Examples?):?\s*$", re.M)
FIELD = re.compile(r"^\s*:(param|type|returns?|rtype|raises)\b", re.M)
DOUBLE = "``"


def said(source: str) -> Iterator[tuple[int, str]]:
    """Every string that stands alone as a statement, with its line: docstrings, and those that describe a constant."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def faults(source: str) -> list[str]:
    """What is not in the dialect, each with its line."""
    return [
        f"line {line}: {fault}"
        for line, text in said(source)
        for fault, found in (
            ("a section; say it in a sentence", SECTION.search(text) or FIELD.search(text)),
            ("double backticks; one is enough", DOUBLE in text),
        )
        if found
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_are_prose(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(path.relative_to(ROOT)): wrong for path in files if (wrong := faults(path.read_text()))}
    assert not found


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One sentence.\n\n    Args:\n        x: a number.\n", 1),
        ("One sentence.\n\n    Parameters\n    ----------\n    x : int\n", 1),
        ("One sentence.\n\n    :param x: a number.\n", 1),
        ("The function ``plan``.", 1),
        ("The function `plan`. Raises `ValueError`: it is not there.\n\n    Returns two numbers.\n", 0),
    ],
)
def test_other_dialects_are_found(text: str, count: int) -> None:
    assert len(faults(f'def f(x):\n    """{text}"""\n')) == count
    assert len(faults(f'X = 1\n"""{text}"""\n')) == count
