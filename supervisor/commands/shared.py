"""What the commands share: options, settings, and how a command ends.

Functions here import what is slow to import: `--help` needs none of it.
"""

import atexit
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from supervisor.commands import WRONG

if TYPE_CHECKING:
    from app.config import Client, Settings
    from supervisor.isolation.limits import Limits

_F = TypeVar("_F", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    metavar="FILE",
    help="The configuration file (default: SISYPHUS_CONFIG, ./pyproject.toml, or the program's own).",
)


def level_options(command: _F) -> _F:
    """Add -q and -v to a command: its parameter `level`."""
    command = click.option("-v", "--verbose", "level", flag_value="DEBUG", help="Log the details, too.")(command)
    return click.option("-q", "--quiet", "level", flag_value="WARNING", help="Log only what is wrong.")(command)


def state_directory() -> Path:
    """Return the directory of the journal and of everything else that must survive.

    Raises:
        ConfigError: there is none.
    """
    import platformdirs

    from app.config import ConfigError

    try:
        return Path(os.environ.get("SISYPHUS_STATE_DIR", "").strip() or platformdirs.user_state_path("sisyphus-client"))
    except RuntimeError as error:  # no HOME, and no such user
        raise ConfigError(
            f"SISYPHUS_STATE_DIR: is not set, and no directory for state can be found: {error}"
        ) from error


def read_settings(level: str | None = None) -> "Settings":
    """Return the settings; `level` is that of -q or -v.

    Raises:
        ConfigError: one is wrong.
    """
    from app.config import load_settings

    return load_settings(os.environ | ({"LOGURU_LEVEL": level} if level else {}), state_directory())


def read_configuration(config: str | None) -> "tuple[Client, dict[str, Limits]]":
    """Return what the configuration file holds.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    from app.config import load_client
    from supervisor.isolation.limits import load_limits

    client = load_client(config, os.environ)
    return client, load_limits(client)


def give_up(message: str) -> NoReturn:
    """End the program: the arguments, the settings or the machine are wrong."""
    from supervisor.commands.display import say

    say(message, err=True)
    sys.exit(WRONG)


def exit_with(command: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command of `Foreground` and exit with its status."""
    try:
        status = run_to_end(command)
    except OSError as error:  # of the client, such as a missing temporary directory: a job's errors are on its record
        give_up(f"the client cannot start: {error}")
    flush_standard_streams()
    atexit._run_exitfuncs()
    os._exit(status)  # not sys.exit: to take all that was imported apart would take 15 ms


def run_to_end(command: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine in an event loop of its own; returns the exit status."""
    import asyncio

    gc.freeze()
    gc.enable()
    try:
        return asyncio.run(command)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # asyncio lacks a thread for its own end, and hides the reason
            raise error.__context__ from None
        raise
    finally:
        command.close()  # one that was not even begun would be complained of


def flush_standard_streams() -> None:
    """Flush them now: if the interpreter's own flush at exit fails, it changes the exit status to 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, AttributeError):
            setattr(sys, name, None)
