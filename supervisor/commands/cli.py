"""The command line, `sisyphus-client`.

Exit statuses: 0 success (`run`: the job completed); 1 the job failed, or `validate` or `modules` found problems; 2 the
file, the arguments or the settings are wrong; 128 + n interrupted by signal n (130 for Ctrl-C).
"""

import asyncio
import io
import os
import resource
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import platformdirs
import setproctitle
from loguru import logger

from app.config import VERSION, Client, ConfigError, Settings, is_set, load_client, load_settings
from supervisor.commands import display, job_files
from supervisor.commands.foreground import FAILED, WRONG, Foreground
from supervisor.commands.logs import logging_in_background
from supervisor.isolation.limits import Limits, load_limits
from supervisor.jobs.model import Job, JobError, Task, read_job

if TYPE_CHECKING:
    from supervisor.worker.worker import Worker

STANDALONE_POLL = "1"
"""QUEUE_POLL_INTERVAL with --standalone: a server in the same process costs nothing to ask."""

DEFAULT_PORT = 5000
"""The API server's port, as in the default of API_URL."""

MIN_OPEN_FILES = 64
"""Descriptors without which not even one task can be run."""

_config = click.option(
    "--config",
    metavar="FILE",
    help="The configuration file (default: SISYPHUS_CONFIG, ./pyproject.toml, or the program's own).",
)
_port = click.option("--port", type=click.IntRange(0, 65535), help="The server's port (default: 5000).")
_database = click.option("--database", metavar="FILE", help="The server's database (default: in the state directory).")


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        """Run a command. What is wrong with its file or the configuration is one line, and status 2."""
        try:
            return super().invoke(context)
        except (ConfigError, JobError) as error:
            _give_up(str(error))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sisyphus-client")
def main() -> None:
    """The worker of the Sisyphus video-encoding farm."""
    _open_standard_streams()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < MIN_OPEN_FILES:
        _give_up(f"at most {most} files may be open, and {MIN_OPEN_FILES} are needed (ulimit -n, LimitNOFILE=)")


@main.command()
@click.argument("job_file", metavar="JOB.json")
@_config
@click.option("--json", "as_json", is_flag=True, help="Print only the job's record on standard output.")
@click.option("--dry-run", is_flag=True, help="Print the exact command lines, and run nothing.")
def run(job_file: str, config: str | None, as_json: bool, dry_run: bool) -> None:
    """Run one job from a file, without a server."""
    settings, client, limits = _load(config)
    job = job_files.read_job_of(job_file, job_files.read_document(job_file), client.modules)
    foreground = Foreground(job, job_file, settings, client, limits)
    _exit_with(foreground.plan() if dry_run else foreground.run(as_json))


@main.command()
@click.argument("job_file", metavar="JOB.json")
@_config
def validate(job_file: str, config: str | None) -> None:
    """Print all problems of a job, task by task, and run nothing; status 1 if there are any."""
    settings, client, limits = _load(config)
    document = job_files.read_document(job_file)
    refused: list[JobError] = []
    try:
        job = read_job(document, client.modules, Path(job_file).stem, refused)
    except JobError as error:
        click.echo(f"{job_file}: {error}")
        sys.exit(FAILED)
    _exit_with(Foreground(job, job_file, settings, client, limits).validate(refused))


@main.group(invoke_without_command=True)
@_config
@click.option("--probe", is_flag=True, help="Try each encoder with a second of picture or sound (takes a minute).")
@click.pass_context
def modules(context: click.Context, config: str | None, probe: bool) -> None:
    """Show the enabled modules, their tools, limits and problems; status 1 if one cannot run."""
    if context.invoked_subcommand:
        return
    settings, client, limits = _load(config)
    job = Job("modules", "modules", tuple(Task(name, None) for name in client.modules))
    _exit_with(Foreground(job, "", settings, client, limits).inspect(probe))


@main.command()
@_config
@click.option("--standalone", is_flag=True, help="Also run an API server: one command for one machine.")
@_port
@_database
def start(config: str | None, standalone: bool, port: int | None, database: str | None) -> None:
    """Take jobs from the API server's queue and run them, until told to stop."""
    if not standalone and (port is not None or database):
        raise click.UsageError("--port and --database are for the server that --standalone runs")
    from supervisor.worker.journal import Journal, JournalError  # slow imports, which `run` does not need
    from supervisor.worker.worker import Worker

    try:
        state = _state_directory()
        settings = load_settings(os.environ, state)
        configuration = _configuration(config)
        setproctitle.setproctitle("sisyphus-client: supervisor")
        with ExitStack() as stack:
            stack.enter_context(logging_in_background(settings.log_level))
            journal = Journal(state)
            stack.callback(journal.close)
            if standalone:
                url = stack.enter_context(_server(port, database, state, settings))
                settings = load_settings(_standalone(os.environ, url), state)
            worker = Worker(settings, configuration, lambda: _configuration(config), journal)
            status = _run_worker(worker)
    except JournalError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"the client cannot start: {error}")
    _flush_standard_streams()
    os._exit(status)  # not sys.exit: a thread may still wait for a response or a name server


@main.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 is all of them."
)
@_port
@click.option(
    "--database",
    metavar="FILE|URL",
    envvar="DATABASE_URL",
    help="A file, or PostgreSQL as postgresql://USER:PASSWORD@HOST/NAME. Also DATABASE_URL, which hides the password.",
)
@click.option("--insecure", is_flag=True, help="Let other machines reach a server without API_TOKEN.")
@click.option("--allow-host", metavar="NAME", multiple=True, help="A name by which clients reach this server.")
@click.option("--cors-origin", metavar="ORIGIN", multiple=True, help="A web page's origin that may use this server.")
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Server processes, with PostgreSQL."
)
@click.option(
    "--keep", metavar="TIME", default="90d", show_default=True, help="How long to keep ended jobs; 0: for ever."
)
@click.option("--keep-failed", metavar="TIME", default="365d", show_default=True, help="The same for failed jobs.")
@click.option(
    "--vanished-after",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds without a heartbeat after which a worker's job goes back to the queue.",
)
def serve(port: int | None, database: str | None, **options: Any) -> None:
    """Run an API server: for one machine or a few with its data in one file, for a farm with PostgreSQL."""
    state = _state_directory()
    settings = load_settings(os.environ, state)
    setproctitle.setproctitle("sisyphus-client: API server")
    with logging_in_background(settings.log_level):
        server = _server_package()
        try:
            server.serve(_server_settings(server, port, database, state, settings, **options))
        except server.ServerError as error:
            raise ConfigError(str(error)) from error
    _flush_standard_streams()


@main.command()
@click.argument("job_file", metavar="JOB.json")
@click.option("--wait", is_flag=True, help="Wait for the end; status 0 if completed, 1 if not, 3 if unknown.")
def submit(job_file: str, wait: bool) -> None:
    """Put a job into the API server's queue and print its id."""
    from supervisor.commands.submit import submit as submit_job

    settings = load_settings(os.environ, _state_directory())
    document = job_files.read_document(job_file)
    job = job_files.read_job_of(job_file, document, job_files.modules_of(document))
    logger.remove()  # `submit` prints its errors itself; the session would log them, too
    body = {"job_title": job.job_title, "tasks": document["tasks"]}
    sys.exit(_run_to_end(submit_job(settings, body, wait)))


@main.command("config")
@_config
def show_config(config: str | None) -> None:
    """Print all settings, limits and modules, each with its source."""
    settings, client, limits = _load(config)
    display.show_configuration(settings, client, limits, os.environ)


@modules.command("new")
@click.argument("name")
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The directory for both files (default: modules/ and tests/ of the checkout).",
)
def new_module(name: str, directory: Path | None) -> None:
    """Write a working module and its test, as a start for your own."""
    from supervisor.commands.new_module import write_module

    click.echo("\n".join(write_module(name, directory)))


def _exit_with(command: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command of `Foreground` and exit with its status."""
    try:
        status = _run_to_end(command)
    except OSError as error:  # of the client, such as a missing temporary directory: a job's errors are on its record
        _give_up(f"the client cannot start: {error}")
    _flush_standard_streams()
    sys.exit(status)


def _run_to_end(command: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(command)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # asyncio lacks a thread for its own end, and hides the reason
            raise error.__context__ from None
        raise
    finally:
        command.close()  # one that was not even begun would be complained of


def _run_worker(worker: "Worker") -> int:
    try:
        status = _run_to_end(worker.main())
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - outermost frame: a defect of the client
        logger.opt(exception=error).critical("A defect ended the client; the next start goes on with its jobs")
        return FAILED
    logger.info("Stopped")
    return status


@contextmanager
def _server(port: int | None, database: str | None, state: Path, settings: Settings) -> Iterator[str]:
    """Run an API server in a thread of this process; yields its URL."""
    server = _server_package()
    try:
        with server.in_background(_server_settings(server, port, database, state, settings)) as url:
            yield url
    except server.ServerError as error:
        raise ConfigError(str(error)) from error


def _server_package() -> Any:
    try:
        import server.main
    except ImportError as error:
        raise ConfigError(
            f"the API server needs packages that are not installed: pip install 'sisyphus-client[server]' ({error})"
        ) from error
    return server.main


def _server_settings(
    server: Any,
    port: int | None,
    database: str | None,
    state: Path,
    settings: Settings,
    **options: Any,
) -> Any:
    return server.ServerSettings(
        database=database or state / "server.sqlite3",
        port=DEFAULT_PORT if port is None else port,
        token=settings.api_token,
        **options,
    )


def _standalone(environ: Mapping[str, str], url: str) -> dict[str, str]:
    if is_set("API_URL", environ):
        logger.warning("API_URL is ignored with --standalone, which runs its own server")
    changed = {"API_URL": url}
    if not is_set("QUEUE_POLL_INTERVAL", environ):
        changed["QUEUE_POLL_INTERVAL"] = STANDALONE_POLL
    return dict(environ) | changed


def _open_standard_streams() -> None:
    """Open standard streams that the caller has closed: else a pipe or socket of ours would become standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # open takes the lowest free number: this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path that the locale cannot show must not fail


def _flush_standard_streams() -> None:
    """Flush them now: if the interpreter's own flush at exit fails, it changes the exit status to 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, AttributeError):
            setattr(sys, name, None)


def _state_directory() -> Path:
    try:
        return Path(os.environ.get("SISYPHUS_STATE_DIR", "").strip() or platformdirs.user_state_path("sisyphus-client"))
    except RuntimeError as error:  # no HOME, and no such user
        raise ConfigError(
            f"SISYPHUS_STATE_DIR: is not set, and no directory for state can be found: {error}"
        ) from error


def _load(config: str | None) -> tuple[Settings, Client, dict[str, Limits]]:
    return load_settings(os.environ, _state_directory()), *_configuration(config)


def _configuration(config: str | None) -> tuple[Client, dict[str, Limits]]:
    client = load_client(config, os.environ)
    return client, load_limits(client)


def _give_up(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(WRONG)
