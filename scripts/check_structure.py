"""Checks the structure of the source tree: lengths, class names, folders and import cycles.

    check_structure.py [ROOT]

Prints one line per finding, and exits with status 1 if there is one. A line names the place, the thing, its size and
the bound. Ruff measures complexity and import-linter knows which package may import which; neither checks these.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("app", "child", "ipc", "modules", "server", "supervisor")
FOLDERS = (*PACKAGES, "docs", "examples", "scripts", "tests")
MAX_FILES = 16  # in a folder
MAX_FUNCTION = 40  # lines, from `def` to the end
MAX_CLASS = 300  # lines, from `class` to the end
MAX_MODULE = 400  # lines

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent)
    sources = {
        path.relative_to(root): path.read_text(encoding="utf-8")
        for folder in (*PACKAGES, "scripts")
        for path in sorted((root / folder).rglob("*.py"))
    }
    trees = {path: ast.parse(source, path) for path, source in sources.items()}
    product = {path: tree for path, tree in trees.items() if path.parts[0] in PACKAGES}
    findings = [
        *long_modules(sources),
        *long_definitions(trees),
        *double_classes(product),
        *import_cycles(product),
        *full_folders(root),
    ]
    print(*findings, f"{len(findings)} findings in {len(trees)} modules", sep="\n")
    return 1 if findings else 0


def long_modules(sources: dict[Path, str]) -> Iterator[str]:
    for path, source in sources.items():
        if (lines := len(source.splitlines())) > MAX_MODULE:
            yield f"{path}:1: the module has {lines} lines (at most {MAX_MODULE})"


def long_definitions(trees: dict[Path, ast.Module]) -> Iterator[str]:
    for path, node in definitions(trees):
        kind, bound = ("class", MAX_CLASS) if isinstance(node, ast.ClassDef) else ("function", MAX_FUNCTION)
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > bound:
            yield f"{path}:{node.lineno}: the {kind} {node.name} has {lines} lines (at most {bound})"


def double_classes(trees: dict[Path, ast.Module]) -> Iterator[str]:
    """A name that two classes share tells a reader nothing about where the class is."""
    first: dict[str, str] = {}
    for path, node in definitions(trees):
        if isinstance(node, ast.ClassDef) and (place := f"{path}:{node.lineno}") != first.setdefault(node.name, place):
            yield f"{place}: the class {node.name} has the same name as the one in {first[node.name]}"


def definitions(trees: dict[Path, ast.Module]) -> Iterator[tuple[Path, Definition]]:
    for path, tree in trees.items():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, Definition))


def import_cycles(trees: dict[Path, ast.Module]) -> Iterator[str]:
    """Import cycles, imports inside functions and under TYPE_CHECKING included: they hide a cycle and do not end it."""
    paths = {module_name(path): path for path in trees}
    imports = {name: imported_modules(name, trees[path], paths) for name, path in paths.items()}
    while cycle := find_cycle(imports):
        importer, imported = cycle[0], cycle[1]
        line = imports[importer].pop(imported)  # breaks this cycle, so that the next one can be found
        yield f"{paths[importer]}:{line}: import cycle {' -> '.join(cycle)}"


def find_cycle(imports: dict[str, dict[str, int]]) -> list[str]:
    """The names along one cycle, the first again at the end; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # it lists each module before the one that imports it
    return []


def imported_modules(name: str, tree: ast.Module, paths: dict[str, Path]) -> dict[str, int]:
    """The modules of ours that the module `name` imports, each with the line of the import."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from package import thing`: the thing is a module of the package, or a name in it
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            candidates = [member if member in paths else f"{node.module}" for member in members]
        else:
            continue
        found |= {module: node.lineno for module in candidates if module in paths and module != name}
    return found


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def full_folders(root: Path) -> Iterator[str]:
    paths = [path.relative_to(root) for top in FOLDERS for path in (root / top).rglob("*") if path.is_file()]
    hidden = (".", "__pycache__", "py.typed")  # the last is empty: a mark for type checkers
    shown = [path for path in paths if not any(part.startswith(hidden) for part in path.parts)]
    for folder, files in sorted(Counter(path.parent for path in shown).items()):
        if files > MAX_FILES:
            yield f"{folder}: the folder has {files} files (at most {MAX_FILES})"


if __name__ == "__main__":
    sys.exit(main())
