"""`sisyphus-client modules new`: writes a working module and its test, as a start for an author's own."""

import builtins
import contextlib
import importlib.util
import keyword
import os
import pkgutil
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

from app.config import ConfigError
from app.formats import toml

ROOT = Path(__file__).parents[2]
"""The directory of the packages: a checkout of the project, or site-packages."""


def write_module(name: str, directory: Path | None = None, root: Path = ROOT, *, as_package: bool = False) -> list[str]:
    """Write `NAME.py` and `test_NAME.py` into `directory`, or into `modules/` and `tests/` of the checkout at `root`.

    With `as_package`, write a package that pip installs: `sisyphus-NAME` in `directory`. A missing directory is made;
    an existing file is not overwritten. Returns lines for a person: the files, how to enable the module, how to try it.

    Raises:
        ConfigError: the name cannot be used, or the files cannot be written; then nothing was written.
    """
    bundled = root / "modules"
    words = {"name": name, "class_name": "".join(part.capitalize() for part in name.split("_"))}
    template = _template("module.py.txt")
    if problem := _find_problem(name, words["class_name"], bundled, template):
        raise ConfigError(f"{name!r} cannot be a module's name: {problem}")
    if as_package:
        return _write_package(words, (directory or Path()).absolute() / f"sisyphus-{name.replace('_', '-')}")
    if directory is not None:
        places = (directory.absolute(), directory.absolute())
    elif (root / "pyproject.toml").is_file() and (root / "tests").is_dir():
        places = (bundled, root / "tests")
    else:
        raise ConfigError("the program does not run from a checkout: say with --directory where the files are to go")
    needs_path = places[0].resolve() != bundled.resolve()
    words["target"] = f"modules.{name}.{words['class_name']}"
    words["paths"] = "[Path(__file__).parent]" if needs_path else "[]"
    module, test = places[0] / f"{name}.py", places[1] / f"test_{name}.py"
    _write({module: "module.py.txt", test: "test_module.py.txt"}, words)
    return [
        *_list_files([module, test]),
        "",
        *_ENABLE,
        *(["[tool.client.modules]", f"paths = {toml([str(module.parent)])}", ""] if needs_path else []),
        "[tool.client.modules.enabled]",
        f"{name} = {toml(words['target'])}",
        "",
        *_how_to_try(test),
    ]


def _write_package(words: dict[str, str], directory: Path) -> list[str]:
    name, package = words["name"], f"sisyphus_{words['name']}"
    words |= {"project": directory.name, "package": package, "target": f"{package}.{words['class_name']}"}
    words["paths"] = '[Path(__file__).parents[1] / "src"]'
    files = {
        directory / "pyproject.toml": "package.toml.txt",
        directory / "src" / package / "__init__.py": "module.py.txt",
        directory / "tests" / f"test_{name}.py": "test_module.py.txt",
    }
    _write(files, words)
    return [
        *_list_files(files),
        "",
        "To install it where the client is:",
        "",
        _install(directory),
        "",
        *_ENABLE,
        "[tool.client.modules.enabled]",
        f"{name} = true",
        "",
        *_how_to_try(directory / "tests" / f"test_{name}.py"),
    ]


_ENABLE = ("To enable it, put this into the configuration file (into its tables, where it has them):", "")

_PYTHON = shlex.quote(sys.executable)


def _install(what: str | Path) -> str:
    pip = f"{_PYTHON} -m pip install {shlex.quote(str(what))}"
    return pip if importlib.util.find_spec("pip") else f"{_PYTHON} -m ensurepip && {pip}"


def _list_files(files: Iterable[Path]) -> list[str]:
    first, *others = files
    return [f"Written: {first}", *(f"         {file}" for file in others)]


def _how_to_try(test: Path) -> list[str]:
    """The command that runs a test with the client's Python, in whose environment pytest may be missing, and pip."""
    if importlib.util.find_spec("pytest"):
        return [f"To try it: {_PYTHON} -m pytest {shlex.quote(str(test))}"]
    return [
        "To try it, with pytest, which is not installed here:",
        "",
        _install("pytest"),
        f"{_PYTHON} -m pytest {shlex.quote(str(test))}",
    ]


def _find_problem(name: str, class_name: str, bundled: Path, template: str) -> str | None:
    """Return why a module cannot have this name: it could not be imported, or would hide a name that it uses."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,29}", name):
        return "expected lower-case letters, digits and _, at most 30"
    if name == "conftest" or name.startswith("test_"):
        return "pytest would take the file for one of its own"
    if keyword.iskeyword(name):
        return "it is a word of Python's own"
    if found := next((module for module in pkgutil.iter_modules([str(bundled)]) if module.name == name), None):
        return f"the client has modules/{name}{'/__init__' if found.ispkg else ''}.py already"
    if name in sys.stdlib_module_names or name in sys.modules or importlib.util.find_spec(name) is not None:
        return "a Python package that is installed has it"
    if hasattr(builtins, class_name) or re.search(rf"^from .*\b{class_name}\b", template, re.MULTILINE):
        return f"its class {class_name} would hide another of that name"
    return None


def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _write(files: Mapping[Path, str], words: Mapping[str, str]) -> None:
    """Write all files, each from the template of this name, or none."""
    texts = {file: Template(_template(name)).substitute(words) for file, name in files.items()}
    with contextlib.ExitStack() as stack:
        for file, text in texts.items():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "x", encoding="utf-8") as target:
                    stack.callback(os.unlink, file)
                    target.write(text)
            except OSError as error:
                raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error
        stack.pop_all()
