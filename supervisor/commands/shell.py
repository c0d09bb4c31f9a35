"""`completion` and `man`: what shells and man(1) know of the program, made from the commands."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from app import VERSION
from app.config import ConfigError

PROGRAM = "sisyphus-client"

COMPLETIONS = {
    "bash": ("XDG_DATA_HOME", ".local/share", f"bash-completion/completions/{PROGRAM}"),
    "zsh": ("XDG_DATA_HOME", ".local/share", f"zsh/site-functions/_{PROGRAM}"),
    "fish": ("XDG_CONFIG_HOME", ".config", f"fish/completions/{PROGRAM}.fish"),
}
"""Where each shell looks for completions: a variable, its default below the home directory, and the file in there."""


@click.command("completion")
@click.argument("shell", type=click.Choice(list(COMPLETIONS)))
@click.option("--install", is_flag=True, help="Write it where the shell looks for it.")
@click.pass_context
def completion_command(context: click.Context, shell: str, install: bool) -> None:
    """For zsh, the directory must be in $fpath: the output of --install says which."""
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"click does not know {shell}")
    source = completion(context.find_root().command, {}, PROGRAM, "_SISYPHUS_CLIENT_COMPLETE").source()
    if install:
        _install(_file(*COMPLETIONS[shell]), source)
    else:
        click.echo(source)


@click.command("man")
@click.option("--install", is_flag=True, help="Write it where man(1) looks for it.")
@click.pass_context
def man_command(context: click.Context, install: bool) -> None:
    root = context.find_root()
    page = "\n".join(_page(root))
    if install:
        _install(_file("XDG_DATA_HOME", ".local/share", f"man/man1/{PROGRAM}.1"), page)
    else:
        click.echo(page)


def _file(variable: str, default: str, name: str) -> Path:
    try:
        return Path(os.environ.get(variable) or Path.home() / default) / name
    except RuntimeError as error:  # no HOME, and no such user
        raise ConfigError(f"{variable}: is not set, and there is no home directory: set it, or HOME") from error


def _install(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error
    click.echo(f"Written: {file}")


def _page(root: click.Context) -> Iterator[str]:
    """The lines of the manual page, in the language of man(7)."""
    yield f'.TH SISYPHUS\\-CLIENT 1 "" "{PROGRAM} {VERSION}"'
    yield f".SH NAME\n{_escape(PROGRAM)} \\- {_escape(root.command.help or '')}"
    yield f".SH SYNOPSIS\n.B {_escape(PROGRAM)}\n.I COMMAND\n.RI [ OPTION ...]\n.SH COMMANDS"
    for name, command in _commands(root.command, root):
        with click.Context(command, info_name=name, parent=root) as context:
            yield f".SS {_escape(' '.join([name, *command.collect_usage_pieces(context)]))}"
            yield "\n.PP\n".join(_escape(" ".join(part.split())) for part in (command.help or "").split("\n\n"))
            for option in command.get_params(context):
                if isinstance(option, click.Option) and (record := option.get_help_record(context)):
                    yield f".TP\n.B {_escape(record[0])}\n{_escape(record[1])}"
    yield ".SH EXIT STATUS\n0: success. 1: the job failed, or nothing was found. 2: arguments, files, settings"
    yield "or the server are wrong. 3: nobody tells how the job ended. 128 + n: signal n.\n.SH ENVIRONMENT"
    yield _escape("API_URL, API_TOKEN, API_TIMEZONE and others: sisyphus-client config shows them.")


def _commands(group: click.Command, context: click.Context, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context) if isinstance(group, click.Group) else ():
        command = group.get_command(context, name) if isinstance(group, click.Group) else None
        if command:
            yield f"{before}{name}", command
            yield from _commands(command, context, f"{before}{name} ")


def _escape(text: str) -> str:
    """Text that roff takes as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)
