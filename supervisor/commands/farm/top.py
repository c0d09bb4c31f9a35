"""`top`: the farm, live."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from supervisor.api.errors import SessionError
from supervisor.commands.bars import Terminal
from supervisor.commands.display import SHORT_ID, is_terminal, plain
from supervisor.commands.farm.client import FarmClient, farm_command, print_json
from supervisor.commands.farm.tables import describe_task

BAR = 12
"""Columns of a bar."""

WHOLE = 1000
"""Columns of a line where there is no terminal."""


@farm_command("top")
@click.option(
    "--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between two looks."
)
def top_command(farm: FarmClient, as_json: bool, interval: float) -> None:
    """Until Ctrl-C; without a terminal once. Says why nothing runs, if nothing does."""
    if as_json:
        print_json(_look(farm))
        return
    console = Terminal(highlight=False, width=None if is_terminal() else WHOLE)
    if not is_terminal():
        with console.capture() as captured:
            console.print(_draw(_look(farm), farm.url, 1000))
        click.echo(captured.get(), nl=False)  # a console for bars ignores that nothing can be written
        return
    first = _draw(_look(farm), farm.url, console.height)
    with Live(first, console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(interval)
                try:
                    shown: Any = _draw(_look(farm), farm.url, console.height)
                except SessionError as error:
                    shown = Text(plain(f"API server {farm.url}: {error}; asking again"))
                live.update(shown, refresh=True)
        except KeyboardInterrupt:
            pass  # that is how it ends


def _look(farm: FarmClient) -> dict[str, Any]:
    """The farm at one instant: `workers` as the server lists them, and its numbers."""
    workers = farm.workers()
    if farm.is_ours and (numbers := farm.find("/status/farm")):
        return {"farm": numbers, "workers": workers}
    queue = farm.get("/queue")
    disabled = queue["attributes"]["disabled"]
    why = "the queue is disabled" if disabled else "" if workers else "no worker is alive"
    numbers = {
        "queue": {"entries": queue["entries"] or 0, "disabled": disabled},
        "running": sum(bool(worker.get("job_id")) for worker in workers),
        "waits": [{"why": why, "entries": queue["entries"]}] if why and queue["entries"] else [],
    }
    return {"farm": numbers, "workers": workers}


def _draw(seen: dict[str, Any], url: str, height: int) -> Group:
    farm, workers = seen["farm"], seen["workers"]
    running = [worker for worker in workers if worker.get("job_id")]
    states = Counter(worker.get("status", "") for worker in workers)
    lines = [
        f"{datetime.now():%H:%M:%S}  {url}",
        f"queue {farm['queue']['entries']}{_age(farm['queue'])}  running {farm['running']}  workers {len(workers)}"
        f" ({states['idle']} idle)" + "".join(f"  {state} {number}" for state, number in farm.get("day", {}).items()),
    ]
    most = max(1, height // 3)  # what runs has room, too
    lines += [f"{wait['entries']} wait: {wait['why']}" for wait in farm["waits"][:most]]
    if others := sum(wait["entries"] for wait in farm["waits"][most:]):
        lines.append(f"{others} wait for other reasons")
    if not farm["running"] and not farm["queue"]["entries"]:
        lines.append("nothing runs: the queue is empty")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("worker", "", "job", "doing"):
        table.add_column(name, min_width=SHORT_ID if name else BAR, no_wrap=True, overflow="ellipsis")
    room = max(1, height - len(lines) - 3)
    for worker in sorted(running, key=lambda worker: str(worker.get("hostname")))[:room]:
        bar = ProgressBar(total=100, completed=worker.get("progress", 0), width=BAR)
        told = (worker["hostname"], worker.get("job_title", ""), describe_task(worker))
        host, title, doing = (Text(plain(text), end="") for text in told)
        table.add_row(host, bar, title, doing)
    if len(running) > room:
        table.add_row(f"and {len(running) - room} more")
    heading = Text(plain("\n".join(lines)))
    return Group(heading, Text(), table) if running else Group(heading)


def _age(queue: dict[str, Any]) -> str:
    if "head_added_at" not in queue:
        return " (disabled)" if queue["disabled"] else ""
    waited = datetime.now(UTC) - datetime.fromisoformat(queue["head_added_at"])
    return f" (the first for {timedelta(seconds=max(0, int(waited.total_seconds())))})"
