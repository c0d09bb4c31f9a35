"""The guide for authors of modules, docs/modules.md: every snippet of it is run."""

import builtins
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import app.exceptions
import modules.checks
import modules.tool
from app.config import load_client
from app.testing import ModuleTester
from modules.base import BaseModule
from modules.output import Output
from supervisor.isolation.limits import load_limits
from supervisor.isolation.runtime import Runtime
from supervisor.jobs.job_run import Checkpoint, JobRun, Verdict
from supervisor.jobs.model import read_job
from supervisor.jobs.task_state import JobObserver, TaskState
from tests.support.exchanges import serving
from tests.support.media import look, make_clip
from tests.support.supervised import CLIENT, Supervised, job
from tests.support.waiting import until

GUIDE = Path(__file__).parent.parent.parent / "docs" / "modules.md"
KINDS = {"python", "json", "toml", "console"}
PROGRAMS = {"sisyphus-client": [CLIENT], "pytest": [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]}
"""What the guide's consoles may run, and how it is run here."""


@dataclass(frozen=True)
class Block:
    """A snippet; `title` is the name of the file that it is, if it is one."""

    kind: str
    title: str
    text: str
    line: int


def read_blocks() -> Iterator[Block]:
    lines = iter(enumerate(GUIDE.read_text(encoding="utf-8").splitlines(keepends=True), 1))
    for number, line in lines:
        if not re.match(r"\s*(```|~~~)", line):
            continue
        head = re.fullmatch(r'```(\w+)(?: title="([\w.]+)")?\n', line)
        assert head, f"line {number}: a snippet of no known form"
        text = "".join(iter(lambda: next(lines)[1], "```\n"))
        yield Block(head[1], head[2] or "", text, number)


BLOCKS = list(read_blocks())
SOURCES = {block.title: block.text for block in BLOCKS if block.kind == "python"}
"""The guide's Python files."""


def title(block: Block) -> str:
    return block.title or f"line {block.line}"


def of_kind(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]


def write(directory: Path, *kinds: str) -> None:
    for block in BLOCKS:
        if block.kind in kinds and block.title:
            (directory / block.title).write_text(block.text)


def test_every_snippet_is_run() -> None:
    """No snippet is of a kind, and no module or test one, that the tests below do not know."""
    assert {block.kind for block in BLOCKS} <= KINDS
    assert all(block.title for block in BLOCKS if block.kind in {"python", "json"})
    assert {name for name in SOURCES if not name.startswith("test_")} == set(TRIALS)
    assert all(block.text.startswith("$ ") for block in of_kind("console"))
    run = "".join(block.text for block in of_kind("console"))
    assert all(block.title in run for block in BLOCKS if block.kind == "json" or block.title.startswith("test_"))


def test_consoles_show_what_is_printed(tmp_path: Path) -> None:
    """The guide is followed from its start: its files are written, its commands run, their output is as it shows."""
    make_clip(tmp_path / "talk.mkv")
    for block in BLOCKS:
        if block.title:
            (tmp_path / block.title).write_text(block.text)
        if block.title == "flac.json":
            write(tmp_path, "python")  # the job is of modules on both sides of it
        if block.kind == "console":
            for command, expected in commands(block.text):
                shown = execute(command, tmp_path)
                assert matches(expected, shown), f"line {block.line}: $ {command}\n{shown}"


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console, and what is shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def execute(command: str, directory: Path) -> str:
    """What a command prints, standard error first."""
    program, *arguments = shlex.split(command)
    assert program in PROGRAMS, f"{program}: the guide may run only {', '.join(PROGRAMS)}"
    environment = {**os.environ, "COLUMNS": "160"}
    argv = [*PROGRAMS[program], *arguments]
    done = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True)
    return re.sub(r" +$", "", done.stderr + done.stdout, flags=re.MULTILINE)


def matches(expected: str, shown: str) -> bool:
    """Whether the output is as shown, `…` standing for any text, and on a line of its own for any lines."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in expected.splitlines()
    ]
    return re.fullmatch("".join(lines), shown) is not None


@pytest.mark.parametrize("block", of_kind("toml"), ids=title)
def test_configuration_is_sound(block: Block, tmp_path: Path) -> None:
    """The client takes each piece of configuration."""
    (tmp_path / "client.toml").write_text(block.text)

    client = load_client(str(tmp_path / "client.toml"), {"MODULE_MEDIA_TOKEN": "pepper"})

    assert client.modules or client.limits
    assert load_limits(client)


# --- the modules, each in jobs of its own ---


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("test_")])
def test_module_does_what_the_guide_says(name: str, supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module of the guide is enabled, and works in the client."""
    directory = supervised.directory / "guide"
    directory.mkdir()
    write(directory, "python")
    found = re.search(r"^class (\w+)\(BaseModule\)", SOURCES[name], re.MULTILINE)
    assert found
    stem = name.removesuffix(".py")
    supervised.configure({"grace": "5s"}, {stem: f"modules.{stem}.{found[1]}"}, paths=(str(directory),))
    monkeypatch.chdir(supervised.directory)
    supervised.supervisor.close()  # the next one starts in this directory

    TRIALS[name](supervised, monkeypatch)


def try_hello(supervised: Supervised, _: pytest.MonkeyPatch) -> None:
    done = supervised.run(job(("hello", {"name": "world"})))

    assert done.returncode == 0
    assert "Hello world." in done.stderr


def try_flac(supervised: Supervised, _: pytest.MonkeyPatch) -> None:
    make_clip(Path("talk.mkv"), seconds=4)
    said: list[Mapping[str, Any]] = []

    class Ear(JobObserver):
        def on_status(self, run: TaskState) -> None:
            said.append({"progress": run.status.progress, **run.status.info})

    data = {"source": "talk.mkv", "target": "talk.flac"}
    (verdict,) = supervised.verdicts(job(("flac", data)), observer=Ear())
    again = supervised.cause(job(("flac", data)))
    resumed = resume(supervised, job(("flac", data)))

    assert verdict.failure is None
    assert [stream["codec_name"] for stream in look(Path("talk.flac"))["streams"]] == ["flac"]
    assert said[-1] == {"progress": 100, "phase": "checking"}
    assert not list(Path().glob(".talk*"))
    assert "target: talk.flac: exists, and overwrite is not true" in again.message
    assert resumed.failure is None


def try_trash(supervised: Supervised, _: pytest.MonkeyPatch) -> None:
    document = job(("trash", {"files": ["a"]}))
    missing = supervised.cause(document)
    Path("a").touch()
    (there,) = supervised.verdicts(document)
    gone = not Path("a").exists()
    resumed = resume(supervised, document)

    assert missing.message == "files[0]: a: no such file"
    assert there.failure is None
    assert there.tasks[0].warnings == []
    assert gone
    assert resumed.failure is None
    assert resumed.tasks[0].warnings == ["a was gone already"]


def try_level(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        monkeypatch.setenv("API_URL", server.url)
        first = supervised.record(job(("level", {"target": "first"})))
        server.kept["/data/level/default"]["level"] = 3
        second = supervised.record(job(("level", {"target": "second"})))

    assert first["completed"], first
    assert second["completed"], second
    assert (Path("first").read_text(), Path("second").read_text()) == ("8", "3")


def try_wait_for(supervised: Supervised, _: pytest.MonkeyPatch) -> None:
    document = job(("wait_for", {"file": "file", "note": "note"}))
    waiting = supervised.start(document)
    until(Path("note").exists, "the note")
    waiting.send_signal(signal.SIGINT)
    waiting.communicate()
    stopped = (waiting.returncode, Path("note").exists())
    Path("file").write_text("text")

    assert stopped == (130, False)
    assert supervised.run(document).returncode == 0


TRIALS: dict[str, Callable[[Supervised, pytest.MonkeyPatch], None]] = {
    "hello.py": try_hello,
    "flac.py": try_flac,
    "trash.py": try_trash,
    "level.py": try_level,
    "wait_for.py": try_wait_for,
}


def resume(supervised: Supervised, document: dict[str, Any]) -> Verdict:
    """Go on with a job whose first task had been begun when the client went down."""
    client = load_client(str(supervised.config), os.environ)

    async def main(shared: Runtime) -> Verdict:
        earlier = Checkpoint(datetime.now(tz=UTC), (), interrupted=True)
        return await JobRun(read_job(document, client.modules), shared, JobObserver(), earlier).run()

    return supervised.supervisor.run(main, client)


# --- the names in the text ---


def spans() -> list[str]:
    """What stands in the text as code."""
    text = re.sub(r"^```.*?^```$", "", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [span for span in re.findall(r"`([^`]+)`", text) if not span.startswith("[")]  # a table of settings


def source_of(name: str) -> str:
    """The text of a module of the guide; empty if it has none of this name."""
    return SOURCES.get(name.removeprefix("app.").removeprefix("modules.") + ".py", "")


def exists(name: str) -> bool:
    """Whether a dotted name is a module of the client, something in one, or a module of the guide."""
    module, _, attribute = name.rpartition(".")
    if source_of(name) or f"class {attribute}(" in source_of(module):
        return True
    try:
        return not module or hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ImportError:
        return False


def test_names_exist() -> None:
    """Every name of the client's that the text mentions is there."""
    code = "\n".join(spans())
    dotted = set(re.findall(r"\b(?:app|modules)(?:\.\w+)+", code))
    dotted |= {f"modules.{name}" for name in re.findall(r"(?<![\w.])(?:tool|checks)\.\w+", code)}
    dotted |= {f"app.exceptions.{name}" for name in re.findall(r"\b\w+Error\b", code)}
    attributes = {*dir(BaseModule), *BaseModule.__annotations__}
    own = {match for match in re.findall(r"\bself\.(\w+)", code) if match not in attributes}
    places = (BaseModule, Output, ModuleTester, modules.tool, modules.tool.Finished, modules.checks, app.exceptions)
    called = {
        name for name in re.findall(r"(\w+)\(", code) if not any(hasattr(place, name) for place in (*places, builtins))
    }

    assert len(dotted) > 5
    assert {name for name in dotted if not exists(name)} == set()
    assert own == set()
    assert called == set()
