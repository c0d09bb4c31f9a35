"""The documents name files, tests, classes, commands, settings and limits that exist."""

import ast
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from app.config import SETTINGS
from ipc.messages import Reason
from modules import schema as task_schema
from supervisor.commands.cli import main
from supervisor.isolation.limits import Limits

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())
PACKAGES = ("app", "child", "ipc", "modules", "server", "supervisor")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LARGE = 150
"""Lines of a file from which on a reader should find it in the architecture page."""


def name_of(document: Path) -> str:
    return document.name


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """The fenced snippets of a kind."""
    return re.findall(rf"^```{kind}\b[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """`text` without fenced snippets."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """The inline code of a text, in order."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def first_column(text: str, heading: str) -> list[str]:
    """The code in the first column of the table below a heading."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, flags=re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


PAGE = read("docs/architecture.md")


def product_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def definitions() -> set[str]:
    """Names of all functions and classes of the product, and of the members of classes as `Class.member`."""
    found: set[str] = set()
    for file in product_files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found |= {node.name, *(f"{node.name}.{member}" for member in members(node))}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
    return found


def members(node: ast.ClassDef) -> Iterator[str]:
    for member in node.body:
        match member:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
                yield name
            case ast.AnnAssign(ast.Name(name)):
                yield name


def names_of_tests(file: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE))


# --- the architecture page ---


def test_files_exist() -> None:
    """Every file and folder that the pages for developers name is there."""
    code = spans(PAGE) + spans(read("CONTRIBUTING.md"))
    paths = [span for span in code if re.fullmatch(r"[a-z.][\w.-]*/[\w./-]*|[\w/-]+\.py", span) and "NAME" not in span]

    assert len(paths) > 50
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_tests_exist() -> None:
    """Every test that the page names is in the test file named before it."""
    moved = []
    file = ROOT
    count = 0
    for span in spans(PAGE):
        if span.startswith("tests/"):
            file = ROOT / span
        elif span.startswith("test_"):
            count += 1
            if not file.is_file() or span not in names_of_tests(file):
                homes = [
                    str(each.relative_to(ROOT))
                    for each in ROOT.glob("tests/**/test_*.py")
                    if span in names_of_tests(each)
                ]
                moved.append(f"{span} is not in {file.name}, but in {homes}")

    assert count > 50
    assert moved == []


def test_names_exist() -> None:
    """Every class, member and function that the page names is one of the product's."""
    code = spans(PAGE)
    classes = {span for span in code if re.fullmatch(r"[A-Z][a-z]+\w*(\.\w+)?", span)}
    functions = {span.removesuffix("()") for span in code if re.fullmatch(r"\w+\(\)", span)}

    assert len(classes) > 30
    assert (classes | functions) - definitions() == set()


def test_settings_and_limits_exist() -> None:
    """Every setting and limit that the page names is one."""
    code = spans(PAGE)
    settings = {span for span in code if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", span)}
    limits = set(first_column(PAGE, "Limits")) - {span for span in code if "/" in span}

    assert settings <= {setting.name for setting in SETTINGS.values()}
    assert limits == set(Limits.__struct_fields__)


def test_large_files_are_on_the_page() -> None:
    """A reader finds every file of more than 150 lines: by its name, or by that of a bundled module's package."""
    named = set(spans(PAGE))
    large = [file for file in product_files() if len(file.read_text(encoding="utf-8").splitlines()) > LARGE]
    paths = [file.relative_to(ROOT) for file in large]
    missing = [
        str(path)
        for path in paths
        if str(path) not in named and not (path.parts[0] == "modules" and f"{path.parent}/" in named)
    ]

    assert len(paths) > 20
    assert missing == []


# --- all documents ---


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    """Every link to a file or a heading of this repository leads to one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text(encoding="utf-8"))):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(file: Path) -> set[str]:
    """The headings of a document, as links name them."""
    headings = re.findall(r"^#+ (.+)$", prose(file.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_are_understood(document: Path) -> None:
    """Every command of ours names a program and options that exist."""
    text = document.read_text(encoding="utf-8")
    lines = [line[2:] for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")]
    mentions = [span for span in spans(text) if re.match(r"(scripts/\w+|sisyphus-client) ", span)]
    for line in lines + mentions:
        words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
        program = ROOT / words[0]
        if words[0].startswith("scripts/"):
            assert os.access(program, os.X_OK), line
        elif program.name == "sisyphus-client":
            parse(main, words[1:], line)


def parse(command: click.Command, words: list[str], line: str) -> None:
    while (
        isinstance(command, click.Group) and words and (found := command.get_command(click.Context(command), words[0]))
    ):
        command, words = found, words[1:]
    try:
        command.make_context(line, words)
    except click.MissingParameter:
        pass  # the text mentions the command alone
    except click.UsageError as error:
        pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("name", ["README.md", "docs/jobs.md"])
def test_tasks_fit_their_schemas(name: str) -> None:
    """The data of every task in an example fits its module's schema."""
    documents: list[Any] = [json.loads(block) for block in blocks(read(name), "json")]
    tasks = [task for document in documents for task in document.get("tasks", [document]) if "data" in task]

    assert tasks
    for task in tasks:
        assert task_schema.problems(task["data"], task_schema.load(task["module"])) == []


def test_readme_lists_all_settings() -> None:
    """The table of settings has every setting, in the order of the code."""
    names = [setting.name for setting in SETTINGS.values()]
    others = ["SISYPHUS_STATE_DIR", "SISYPHUS_CONFIG"]

    assert first_column(read("README.md"), "Settings") == names + others


def test_readme_lists_all_limits() -> None:
    """The table of limits has every limit."""
    assert sorted(first_column(read("README.md"), "Limits")) == sorted(Limits.__struct_fields__)


def test_all_reasons_are_explained() -> None:
    """The page about jobs explains every reason that a record may give."""
    explained = first_column(read("docs/jobs.md"), "The record")

    assert set(get_args(Reason)) <= set(explained)
