"""`sisyphus-client modules new`: writes a working module and its test, as a start for an author's own."""

import builtins
import contextlib
import importlib.util
import json
import keyword
import os
import pkgutil
import re
import shlex
import sys
from pathlib import Path
from string import Template

from app.config import ConfigError

ROOT = Path(__file__).parents[2]
"""The directory of the packages: a checkout of the project, or site-packages."""


def write_module(name: str, directory: Path | None = None, root: Path = ROOT) -> list[str]:
    """Write `NAME.py` and `test_NAME.py` into `directory`, or into `modules/` and `tests/` of the checkout at `root`.

    A missing directory is made; an existing file is not overwritten. Returns lines for a person: the files, how to
    enable the module, and how to try it.

    Raises:
        ConfigError: the name cannot be used, or the files cannot be written; then nothing was written.
    """
    bundled = root / "modules"
    if directory is not None:
        places = (directory.absolute(), directory.absolute())
    elif (root / "pyproject.toml").is_file() and (root / "tests").is_dir():
        places = (bundled, root / "tests")
    else:
        raise ConfigError("the program does not run from a checkout: say with --directory where the files are to go")
    needs_path = places[0].resolve() != bundled.resolve()
    words = {"name": name, "class_name": "".join(part.capitalize() for part in name.split("_"))}
    words["paths"] = "[str(Path(__file__).parent)]" if needs_path else "[]"
    template = _template("module.py.txt")
    if problem := _find_problem(name, words["class_name"], bundled, template):
        raise ConfigError(f"{name!r} cannot be a module's name: {problem}")
    module, test = places[0] / f"{name}.py", places[1] / f"test_{name}.py"
    texts = {module: template, test: _template("test_module.py.txt")}
    _write({file: Template(text).substitute(words) for file, text in texts.items()})
    return [
        f"Written: {module}",
        f"         {test}",
        "",
        "To enable it, put this into the configuration file (into its tables, where it has them):",
        "",
        *(["[tool.client.modules]", f"paths = [{_toml(str(module.parent))}]", ""] if needs_path else []),
        "[tool.client.modules.enabled]",
        f'{name} = "modules.{name}.{words["class_name"]}"',
        "",
        f"To try it: pytest {shlex.quote(str(test))}",
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


def _toml(text: str) -> str:
    """Quote a string for TOML, whose rules are JSON's but for one character (DEL)."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(files: dict[Path, str]) -> None:
    """Write all files, or none."""
    with contextlib.ExitStack() as stack:
        for file, text in files.items():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "x", encoding="utf-8") as target:
                    stack.callback(os.unlink, file)
                    target.write(text)
            except OSError as error:
                raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error
        stack.pop_all()
