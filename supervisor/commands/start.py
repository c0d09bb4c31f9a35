"""`start`: the worker, until it is told to stop."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import setproctitle
from loguru import logger

from app.config import ConfigError, Settings, is_set
from ipc.lean import unneeded_tls, without
from supervisor.commands import FAILED
from supervisor.commands.logs import logging_in_background
from supervisor.commands.serve import port_option, server_beside
from supervisor.commands.shared import (
    config_option,
    flush_standard_streams,
    give_up,
    level_options,
    read_configuration,
    read_settings,
    run_to_end,
)

if TYPE_CHECKING:
    from supervisor.worker.worker import Worker

STANDALONE_POLL = 1.0
"""QUEUE_POLL_INTERVAL with --standalone: a server in the same process costs nothing to ask."""


@click.command("start")
@config_option
@click.option("--standalone", is_flag=True, help="Also run an API server: one command for one machine.")
@port_option
@click.option("--database", metavar="FILE", help="The server's database (default: in the state directory).")
@level_options
def start_command(
    config: str | None, standalone: bool, port: int | None, database: str | None, level: str | None
) -> None:
    if not standalone and (port is not None or database):
        raise click.UsageError("--port and --database are for the server that --standalone runs")
    with without(*([] if standalone else unneeded_tls())):  # a server may send its notices by TLS
        from supervisor.worker.journal import Journal, JournalError  # slow imports, which `run` does not need
        from supervisor.worker.worker import Worker

    try:
        settings = read_settings(level)
        configuration = read_configuration(config)
        setproctitle.setproctitle("sisyphus-client: supervisor")
        with ExitStack() as stack:
            stack.enter_context(logging_in_background(settings.log_level))
            journal = Journal(Path(settings.state_directory))
            stack.callback(journal.close)
            if standalone:
                url = stack.enter_context(server_beside(configuration[0].server, port, database, settings))
                settings = _standalone(settings, url)
            worker = Worker(settings, configuration, lambda: read_configuration(config), journal)
            status = _run_worker(worker)
    except JournalError as error:
        give_up(str(error))
    except OSError as error:
        give_up(f"the client cannot start: {error}")
    flush_standard_streams()
    os._exit(status)  # not sys.exit: a thread may still wait for a response or a name server


def _run_worker(worker: "Worker") -> int:
    try:
        status = run_to_end(worker.main())
    except (OSError, ConfigError):
        raise
    except Exception as error:  # noqa: BLE001 - outermost frame: a defect of the client
        logger.opt(exception=error).critical("A defect ended the client; the next start goes on with its jobs")
        return FAILED
    logger.info("Stopped")
    return status


def _standalone(settings: Settings, url: str) -> Settings:
    if is_set("API_URL", os.environ):
        logger.warning("API_URL is ignored with --standalone, which runs its own server")
    poll = settings.queue_poll_interval if is_set("QUEUE_POLL_INTERVAL", os.environ) else STANDALONE_POLL
    return msgspec.structs.replace(settings, api_url=url, queue_poll_interval=poll)
