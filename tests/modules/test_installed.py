"""The helps of installed programs, kept between processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.exceptions import RunError
from ipc.words import suggestion
from modules.installed import help_of
from tests.modules.steps import put_program


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that prints a help and notes that it was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return put_program(tmp_path, "program", f'echo asked >> {tmp_path}/notes\necho help of "$1"', monkeypatch)


def ask(*arguments: str) -> str:
    """The help in a process of its own, as each task has one."""
    code = f"from modules.installed import help_of\nprint(help_of('program', {arguments!r}), end='')"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def times(program: Path) -> int:
    return len((program.parent / "notes").read_text().splitlines())


def test_a_program_is_asked_once(program: Path) -> None:
    """Another process reads what the first has kept, for each way to ask."""
    assert [ask("--help"), ask("--help"), ask("-h")] == ["help of --help\n", "help of --help\n", "help of -h\n"]
    assert times(program) == 2


def test_another_program(program: Path) -> None:
    """A program that has changed is asked again, and its old help is not kept."""
    ask("--help")
    program.write_text(program.read_text().replace("help of", "new help of"))

    assert ask("--help") == "new help of --help\n"
    assert len(list((program.parent / "cache" / "sisyphus-client").iterdir())) == 1


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"'/other' 1 2\nwrong"])
def test_a_kept_file_that_is_none(text: bytes, program: Path) -> None:
    """Whatever stands in the cache, the help is the program's."""
    ask("--help")
    (kept,) = (program.parent / "cache" / "sisyphus-client").iterdir()
    kept.write_bytes(text)

    assert ask("--help") == "help of --help\n"


def test_no_place_to_keep_it(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written is no reason to fail."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")

    assert ask("--help") == ask("--help") == "help of --help\n"
    assert times(program) == 2


def test_a_program_that_fails(program: Path) -> None:
    """The help of a program that fails is neither taken nor kept: it may be half of it."""
    good = program.read_text()
    program.write_text(f"{good}exit 1\n")
    with pytest.raises(RunError, match="exited with status 1"):
        help_of("program", ("--fail",))
    program.write_text(f"{good}     \n")  # as many bytes

    assert ask("--fail") == "help of --fail\n"


def test_asked_anew(program: Path) -> None:
    """Where the kept help lacks something, the program is asked again, and its new answer is kept."""
    ask("--help")
    (kept,) = (program.parent / "cache" / "sisyphus-client").iterdir()
    kept.write_text(kept.read_text().replace("help of", "old help of"))

    assert ask("--help") == "old help of --help\n"
    assert help_of("program", ("--help",), anew=True) == ask("--help") == "help of --help\n"


def test_no_program() -> None:
    """A program that is not installed is an error that says so."""
    with pytest.raises(RunError, match="not installed"):
        help_of("no-such-program", ("--help",))


def test_misspelt_names() -> None:
    """A similar name is hinted at, and no other."""
    assert suggestion("CRFF", ["crf", "preset"]) == " (did you mean 'crf'?)"
    assert suggestion("x" * 10_000, ["crf"]) == ""
