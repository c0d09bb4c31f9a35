"""The command line, `sisyphus-client`.

Each command is imported when it is called: `--version` and `--help` need none of them.

Exit statuses: 0 success (`run`: the job completed); 1 the job failed, `validate` or `modules` found problems, or
nothing was found; 2 the file, the arguments, the settings or the server are wrong; 128 + n interrupted by signal n.
"""

import importlib
import inspect
import resource
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from app import VERSION
from supervisor.commands import WRONG

MIN_OPEN_FILES = 64
"""Descriptors without which not even one task can be run."""

COMMANDS = {
    "run": ("local", "Run one job from a file, without a server."),
    "validate": ("local", "Print all problems of a job, task by task; run nothing."),
    "schema": ("local", "Print the JSON schema of a job file, for editors."),
    "modules": ("local", "Show the enabled modules, their tools, limits and problems."),
    "config": ("local", "Print all settings, limits and modules, each with its source."),
    "start": ("start", "Take jobs from the API server's queue and run them, until told to stop."),
    "serve": ("serve", "Run an API server: its data is in one file, or for a farm in PostgreSQL."),
    "submit": ("farm.submit", "Put jobs into the queue and print their ids."),
    "watch": ("farm.watch", "Submit a job for each media file that a directory gets."),
    "jobs": ("farm.jobs", "List jobs: what waits, what runs, what ended and how."),
    "show": ("farm.jobs", "Show everything of a job, and follow it to its end."),
    "retry": ("farm.orders", "Run jobs again that have ended."),
    "cancel": ("farm.orders", "Stop jobs: those that wait, and those that run."),
    "move": ("farm.orders", "Move jobs to the head of the queue, or give them a priority."),
    "top": ("farm.top", "Show live what runs, what waits, and why nothing runs."),
    "workers": ("farm.orders", "List the workers: what they do, and their tags."),
    "pause": ("farm.orders", "Pause a worker: its job stands still until it is resumed."),
    "resume": ("farm.orders", "Let a paused worker go on."),
    "disable": ("farm.orders", "Have a worker, or all of them, take no more jobs."),
    "enable": ("farm.orders", "Have a worker, or all of them, take jobs again."),
    "data": ("farm.data", "Show and change the sets of options that are kept for modules."),
    "completion": ("shell", "Print or install the completion of a shell: bash, zsh or fish."),
    "man": ("shell", "Print or install the manual page."),
}
"""The commands: the module that has each, and its help, which stands here because the list of all commands needs it."""


class WholeGroup(click.Group):
    """A group whose help shows the sentence of each command whole."""

    def summarise(self, context: click.Context) -> dict[str, str]:
        """Return the help of each command."""
        commands = {name: self.get_command(context, name) for name in self.list_commands(context)}
        return {name: command.help or "" for name, command in commands.items() if command}

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summarise(context).items()))


class Commands(WholeGroup):
    """The commands of `COMMANDS`."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return all names, in the order of the help."""
        del context
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import a command. Its function has the name of the command, with `_command` at the end."""
        del context
        if name not in COMMANDS:
            return None
        module, summary = COMMANDS[name]
        imported = importlib.import_module(f"supervisor.commands.{module}")
        command: click.Command = getattr(imported, f"{name}_command")
        command.help = "\n\n".join(filter(None, (summary, command.callback and inspect.getdoc(command.callback))))
        return command

    def summarise(self, context: click.Context) -> dict[str, str]:
        """Return the help of each command without importing any."""
        del context
        return {name: summary for name, (_, summary) in COMMANDS.items()}

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing any."""
        found = [name for name in COMMANDS if name.startswith(incomplete)]
        return [CompletionItem(name, help=COMMANDS[name][1]) for name in found] or super().shell_complete(
            context, incomplete
        )

    def invoke(self, context: click.Context) -> Any:
        """Run a command. What is wrong with its file, the configuration or the server is one line, and status 2."""
        try:
            return super().invoke(context)
        except Exception as error:
            from app.config import ConfigError  # slow imports, before which a command may have started the zygote
            from supervisor.commands.display import say
            from supervisor.jobs.model import JobError

            if not isinstance(error, ConfigError | JobError):
                raise
            say(str(error), err=True)
            sys.exit(WRONG)
        except KeyboardInterrupt:
            click.echo(err=True)  # the shell's prompt begins a line of its own
            sys.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sisyphus-client")
def main() -> None:
    """The worker of the Sisyphus video-encoding farm."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < MIN_OPEN_FILES:
        click.echo(
            f"at most {most} files may be open, and {MIN_OPEN_FILES} are needed (ulimit -n, LimitNOFILE=)", err=True
        )
        sys.exit(WRONG)
