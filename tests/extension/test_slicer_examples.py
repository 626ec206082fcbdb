"""The examples of docs/slicer.md are Python, and call the module with names it has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "slicer.md").read_text(encoding="utf-8")


def examples() -> list[ast.Module]:
    return [ast.parse(code) for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)]


def function(path: str, name: str) -> ast.FunctionDef:
    """A function or method of a file, by its name."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def test_process_knows_every_keyword(library):
    arguments = function("KLIPExtension/KLIP.py", "process").args
    known = {one.arg for one in [*arguments.args, *arguments.kwonlyargs]} | set(
        vars(library("command").RunSettings())
    )
    calls = [
        node
        for example in examples()
        for node in ast.walk(example)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "process"
    ]
    assert len(calls) >= 4
    assert {keyword.arg for call in calls for keyword in call.keywords} <= known


def test_every_imported_name_of_the_module_is_there():
    imports = [
        node
        for example in examples()
        for node in ast.walk(example)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("KLIP")
    ]
    assert imports
    for node in imports:
        path = ROOT / "KLIPExtension" / f"{node.module.replace('.', '/')}.py"
        defined = {one.name for one in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(one, "name")}
        assert {alias.name for alias in node.names} <= defined


def test_links_within_the_page_lead_somewhere():
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    targets = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert targets
    assert set(targets) <= headings


def test_linked_pages_are_there():
    for target in re.findall(r"\]\(([a-z-]+\.md)\)", PAGE):
        assert (ROOT / "docs" / target).is_file()
