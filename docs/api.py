"""Writes `docs/api.md`, the reference of all public names, from their signatures and docstrings: `python docs/api.py`.

What is said of a field or an attribute stands below it in the source, where only the syntax tree still has it.
"""

import ast
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).with_name("api.md")
HEAD = """# API

Everything in `pocketxl.engine` that is public, and the builder. [Embedding](embedding.md) shows how it is used,
[structure](structure.md) how it is made. This page is written by `python docs/api.py` from the docstrings.
"""
ENGINE = "pocketxl.engine"
SECTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Making pictures": (ENGINE, ("Pipeline", "Output")),
    "Options of a call": (ENGINE, ("GenerationRequest", "CallOptions", "ResolvedRequest")),
    "Texts and sizes": (ENGINE, ("escape", "size_of", "read_styles", "Style")),
    "Upscaling": (ENGINE, ("Upscaler",)),
    "Memory": (ENGINE, ("MemoryPlan",)),
    "Progress": (ENGINE, ("ProgressEvent",)),
    "Checking an engine": (ENGINE, ("check_engine", "ComponentCheck")),
    "A sooner start": (ENGINE, ("prepare_engine", "Preparation", "forget_prepared")),
    "Building an engine": ("pocketxl.export.build", ("build", "BuildReport")),
    "Building a ControlNet": ("pocketxl.export.companions.controlnet", ("build_controlnet",)),
    "Building a T2I adapter": ("pocketxl.export.companions.t2i_adapter", ("build_t2i_adapter",)),
    "Building an IP-Adapter": ("pocketxl.export.companions.ip_adapter", ("build_ip_adapter",)),
    "Building an upscaler": ("pocketxl.export.companions.upscaler", ("build_upscaler",)),
}
"""Title → module and names, in the order of the page. What is public and not here is listed before the errors."""
ROWS: Mapping[str, str] = {"GenerationRequest": "option", "CallOptions": ""}
"""Classes that are not told field by field: a table of options, or no fields at all."""
WIDTH = 100


def page() -> str:
    """The whole page."""
    engine = import_module(ENGINE)
    public = [name for name in engine.__all__ if not name.startswith("_")]
    errors = [name for name in public if _is_error(getattr(engine, name))]
    told = {name for module, names in SECTIONS.values() if module == ENGINE for name in names}
    others = tuple(name for name in public if name not in told and name not in errors)
    sections = {**SECTIONS, **({"More": (ENGINE, others)} if others else {})}
    parts = [HEAD]
    for title, (module, names) in sections.items():
        parts.append(f"## {title}\n")
        parts += [_entry(name, getattr(import_module(module), name)) for name in names]
    return "\n".join([*parts, "## Errors\n", _errors(errors)])


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _entry(name: str, value: Any) -> str:
    """One class or function, with its own heading."""
    module = inspect.getmodule(value)
    assert module is not None
    node = next(n for n in _tree(module).body if getattr(n, "name", None) == name)
    if isinstance(node, ast.FunctionDef):
        return f"### {name}\n\n{_code(_signature(node))}\n{_docstring(node)}\n"
    assert isinstance(node, ast.ClassDef)
    lines = [f"### {name}\n", _docstring(node), ""]
    if ROWS.get(name) == "option":
        lines += [*_options(value, node), ""]
    elif name not in ROWS:
        lines += [*_fields(node), *_methods(node)]
    return "\n".join(lines)


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _signature(node: ast.FunctionDef, name: str = "") -> str:
    """As in the source, without `self`; one argument a line where it is long."""
    arguments = node.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments = ast.parse(f"def f({ast.unparse(arguments)}): 0").body[0].args  # type: ignore[attr-defined]
        del arguments.args[0]
    shown = name or node.name
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    listed = [argument.replace("'", '"') for argument in _arguments(arguments)]
    line = f"{shown}({', '.join(listed)}){returns}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{shown}(", *(f"    {argument}," for argument in listed), f"){returns}"])


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    """Each argument with its type and default."""
    first = len(arguments.args) - len(arguments.defaults)
    for i, argument in enumerate(arguments.args):
        yield _argument(argument, arguments.defaults[i - first] if i >= first else None)
    if arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _argument(argument, default)
    if arguments.kwarg is not None:
        yield f"**{_argument(arguments.kwarg, None)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation is not None else ""
    return f"{argument.arg}{kind}" + (f" = {ast.unparse(default)}" if default is not None else "")


def _said(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Every statement with the string that stands below it."""
    for statement, following in zip(body, [*body[1:], None], strict=True):
        below = following.value if isinstance(following, ast.Expr) else None
        text = below.value if isinstance(below, ast.Constant) and isinstance(below.value, str) else ""
        yield statement, inspect.cleandoc(text)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """Fields of a dataclass, attributes that `__init__` says something of, and properties."""
    found = []
    for statement, text in _said(node.body):
        if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.target).startswith("_"):
            found.append(_item(ast.unparse(statement.target), ast.unparse(statement.annotation), text))
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            for inner, words in _said(statement.body):
                name = ast.unparse(inner.targets[0]) if isinstance(inner, ast.Assign) else ""
                if name.startswith("self.") and not name.startswith("self._") and words:
                    found.append(_item(name.removeprefix("self."), "", words))
        elif isinstance(statement, ast.FunctionDef) and _is_property(statement) and statement.name[0] != "_":
            assert statement.returns is not None
            found.append(_item(statement.name, ast.unparse(statement.returns), _docstring(statement)))
    if found:
        yield from (*found, "")


def _item(name: str, kind: str, text: str) -> str:
    words = " ".join(text.split())
    return f"- `{name}{f': {kind}' if kind else ''}`{f' · {words}' if words else ''}"


def _is_property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def _methods(node: ast.ClassDef) -> Iterator[str]:
    """Public methods, and the call itself under the name of an object."""
    for statement in node.body:
        if not isinstance(statement, ast.FunctionDef) or _is_property(statement):
            continue
        if statement.name == "__call__":
            title, shown = f"Calling a {node.name}", "pipe" if node.name == "Pipeline" else node.name.lower()
        elif statement.name.startswith("_"):
            continue
        else:
            title = shown = f"{node.name}.{statement.name}"
        yield f"#### {title}\n\n{_code(_signature(statement, shown))}\n{_docstring(statement)}\n"


def _options(kind: Any, node: ast.ClassDef) -> Iterator[str]:
    """A table of the fields: default, what is allowed, what it means."""
    options = import_module("pocketxl.engine.request.options").OPTIONS
    samplers = import_module("pocketxl.engine.sampling.samplers.table")
    words = {ast.unparse(s.target): text for s, text in _said(node.body) if isinstance(s, ast.AnnAssign)}
    yield "| option | type | default | allowed | |\n|---|---|---|---|---|"
    for field in dataclasses.fields(kind):
        row = options.get(field.name)
        limits = row.limits if row is not None else None
        allowed = f"{limits[0]:,} to {limits[1]:,}" if limits is not None else ""
        default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        annotation = next(s for s in node.body if isinstance(s, ast.AnnAssign) and ast.unparse(s.target) == field.name)
        cells = (
            f"`{field.name}`",
            f"`{ast.unparse(annotation.annotation)}`",
            default,
            allowed,
            " ".join(words[field.name].split()),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield f"\nSamplers: {_names(samplers.SAMPLERS)}. Schedules: {_names(samplers.SCHEDULES)}."


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _errors(names: Iterable[str]) -> str:
    """A table of the errors, the base first."""
    engine = import_module(ENGINE)
    kinds = sorted((getattr(engine, name) for name in names), key=lambda kind: int(kind.exit_code))
    rows = ["| error | exit status | |", "|---|---|---|"]
    for kind in kinds:
        parents = [parent.__name__ for parent in kind.__bases__ if parent.__name__ != "PocketXLError"]
        named = f"`{kind.__name__}`" + (f" ({_names(parents)})" if parents != ["Exception"] and parents else "")
        rows.append(f"| {named} | {kind.exit_code} | {' '.join(inspect.cleandoc(kind.__doc__ or '').split())} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
