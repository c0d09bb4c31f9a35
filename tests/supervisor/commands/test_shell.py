"""`completion` and `man`, and the help of all commands."""

import os
import subprocess
from pathlib import Path

import click
import pytest

from supervisor.commands.cli import COMMANDS, main
from supervisor.commands.shell import COMPLETIONS
from tests.support.supervised import CLIENT


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_completion(shell: str, tmp_path: Path) -> None:
    """One command installs the completion of a shell where it looks; that of bash completes commands and options."""
    environ = {"PATH": f"{Path(CLIENT).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    done = subprocess.run([CLIENT, "completion", shell, "--install"], env=environ, capture_output=True, text=True)
    file = Path(done.stdout.removeprefix("Written: ").strip())

    assert done.returncode == 0, done.stderr
    assert file.is_relative_to(tmp_path)
    assert "_SISYPHUS_CLIENT_COMPLETE" in file.read_text()
    if shell == "bash":
        ask = f'. {file}; COMP_WORDS=(sisyphus-client "$1" "$2"); COMP_CWORD=$3; _sisyphus_client_completion "$0"'
        one, two = (
            subprocess.run(
                ["bash", "-c", f"{ask}; echo ${{COMPREPLY[@]}}", "sisyphus-client", *words],
                env=environ, capture_output=True, text=True,
            ).stdout.strip()
            for words in (("wo", "", "1"), ("jobs", "--fo", "2"))
        )  # fmt: skip
        assert (one, two) == ("workers", "--follow")


def test_manual_page(tmp_path: Path) -> None:
    """The manual page has every command and option, and man(1) shows it without a warning."""
    environ = os.environ | {"HOME": str(tmp_path), "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    environ.pop("XDG_DATA_HOME", None)

    done = subprocess.run([CLIENT, "man", "--install"], env=environ, capture_output=True, text=True)
    page = done.stdout.removeprefix("Written: ").strip()
    shown = subprocess.run(["man", "--warnings", "-l", page], env=environ, capture_output=True, text=True)

    assert Path(page) == tmp_path / ".local/share/man/man1/sisyphus-client.1"
    assert shown.stderr == ""
    words = " ".join(shown.stdout.replace("\u2010\n", "").split())
    assert all(f" {name} " in words for name in (*COMMANDS, "--template", "--requires", "data put"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a home")
@pytest.mark.parametrize(("words", "variable"), [("completion fish", "XDG_CONFIG_HOME"), ("man", "XDG_DATA_HOME")])
def test_no_home(words: str, variable: str) -> None:
    """Without a home directory, as in a container, one line says what to set."""
    environ = {"PATH": os.environ["PATH"]}
    command = ["setpriv", "--reuid=54321", CLIENT, *words.split(), "--install"]

    done = subprocess.run(command, env=environ, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{variable}: is not set, and there is no home directory: set it, or HOME\n"


def test_help_is_whole() -> None:
    """No help is cut: not the list of commands, and not the text of any command or option."""

    def check(command: click.Command, name: str, parent: click.Context | None) -> None:
        with click.Context(command, parent, name, terminal_width=80, help_option_names=["-h", "--help"]) as context:
            shown = command.get_help(context)
            assert "..." not in shown.replace("...\n", "\n").replace("...]", "]").replace("]...", "]"), shown
            assert all(len(line) <= 80 for line in shown.splitlines()), shown
            for each in command.list_commands(context) if isinstance(command, click.Group) else ():
                found = command.get_command(context, each)
                assert found, each
                check(found, each, context)

    check(main, "sisyphus-client", None)


def test_version_and_help_import_little() -> None:
    """`--version` and `--help` import no part of the client but the list of its commands."""
    code = (
        "import sys\nfrom supervisor.commands.cli import main\n"
        "main(['--help'], standalone_mode=False)\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([CLIENT.replace("sisyphus-client", "python"), "-c", code], capture_output=True, text=True)

    ours = {name for name in done.stderr.split() if name.split(".")[0] in ("app", "ipc", "server", "supervisor")}
    assert ours == {"app", "supervisor", "supervisor.commands", "supervisor.commands.cli"}
    assert not {"asyncio", "loguru", "msgspec", "requests", "rich"} & set(done.stderr.split())
