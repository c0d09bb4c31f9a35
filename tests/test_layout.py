"""Where the tests stand: in folders like those of the packages, in files like the ones that they test."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

PACKAGES = ("app", "child", "ipc", "modules", "server", "supervisor")

LARGE = 150
"""Lines of code from which on a file has tests of its own."""


def lines_of_code(file: Path) -> int:
    """The lines that are neither empty, nor a comment, nor a docstring."""
    text = file.read_text()
    strings = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
    docstrings = {
        line
        for node in strings
        if isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return sum(number not in docstrings and line.strip()[:1] not in ("", "#") for number, line in lines)


def find_tests(file: Path) -> Iterator[Path]:
    """The test files of a product file: one with its name, or a folder with its name that has some."""
    name = file.relative_to(ROOT).with_suffix("")
    name = name.parent if name.name == "__init__" else name
    place = ROOT / "tests" / name
    yield from place.parent.glob(f"test_{name.name}.py")
    yield from place.glob("test_*.py")


def test_large_files_have_tests_of_their_own() -> None:
    """Whoever changes a large file finds its tests under its name."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]

    large = [file for file in files if lines_of_code(file) > LARGE]

    assert len(large) > 10
    assert not [str(file.relative_to(ROOT)) for file in large if not any(find_tests(file))]


def test_every_test_says_what_it_holds() -> None:
    """Each test has a docstring: what must be true."""
    functions = [
        (file.name, node.name, ast.get_docstring(node))
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]

    assert functions
    assert not [f"{file}::{name}" for file, name, said in functions if not said]
