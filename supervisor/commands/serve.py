"""`serve`: the API server, until it is told to stop. `start --standalone` runs one beside its worker."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import setproctitle

from app.config import VERSION, ConfigError, Settings, load_server
from supervisor.commands.logs import logging_in_background
from supervisor.commands.shared import config_option, flush_standard_streams, level_options, read_settings

DEFAULT_PORT = 5000
"""The API server's port, as in the default of API_URL."""

port_option = click.option("--port", type=click.IntRange(0, 65535), help="The server's port (default: 5000).")


@click.command("serve")
@config_option
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 is all of them."
)
@port_option
@click.option(
    "--database",
    metavar="FILE|URL",
    envvar="DATABASE_URL",
    help="A file, or PostgreSQL as postgresql://USER:PASSWORD@HOST/NAME. Also DATABASE_URL, which hides the password.",
)
@click.option("--insecure", is_flag=True, help="Let other machines reach a server without API_TOKEN.")
@click.option("--allow-host", metavar="NAME", multiple=True, help="A name by which clients reach this server.")
@click.option("--tls-cert", metavar="FILE", default="", help="A certificate in PEM: serve HTTPS.")
@click.option("--tls-key", metavar="FILE", default="", help="Its key, unless that is in the same file.")
@click.option("--root-path", metavar="PATH", default="", help="The path under which a proxy shows the server.")
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
@level_options
def serve_command(
    config: str | None, port: int | None, database: str | None, level: str | None, **options: Any
) -> None:
    settings = read_settings(level)
    setproctitle.setproctitle("sisyphus-client: API server")
    with logging_in_background(settings.log_level):
        server = _server_package()
        try:
            server.serve(_server_settings(server, load_server(config, os.environ), port, database, settings, **options))
        except server.ServerError as error:
            raise ConfigError(str(error)) from error
    flush_standard_streams()


@contextmanager
def server_beside(table: dict[str, Any], port: int | None, database: str | None, settings: Settings) -> Iterator[str]:
    """Run an API server in a thread of this process; yields its URL."""
    server = _server_package()
    try:
        with server.in_background(_server_settings(server, table, port, database, settings)) as url:
            yield url
    except server.ServerError as error:
        raise ConfigError(str(error)) from error


def _server_package() -> Any:
    try:
        import server.main
    except ImportError as error:
        raise ConfigError(
            f"the API server needs packages that are not installed ({error}): install the program's own file with its"
            f" extra, as in pip install './sisyphus_client-{VERSION}-py3-none-any.whl[server]'"
        ) from error
    return server.main


def _server_settings(
    server: Any,
    table: dict[str, Any],
    port: int | None,
    database: str | None,
    settings: Settings,
    **options: Any,
) -> Any:
    return server.ServerSettings(
        database=database or Path(settings.state_directory) / "server.sqlite3",
        port=DEFAULT_PORT if port is None else port,
        token=settings.api_token,
        notify=table.get("notify", {}),
        worker_token=settings.worker_token,
        **options,
    )
