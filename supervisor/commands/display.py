"""Tables and lines of results for a person: whole where the output is no terminal, within its width where it is one."""

import json
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click
from rich.cells import cell_len, set_cell_size
from rich.filesize import decimal

from app import SECRETS
from app.config import SETTINGS, Client, Settings, is_set, shown_url
from app.installed import list_installed, path_warnings
from ipc.messages import Inspection
from supervisor.isolation.limits import IoPriority, Limits
from supervisor.isolation.line_pipe import printable
from supervisor.jobs.job_run import Verdict
from supervisor.jobs.record import Failure

SHORT_ID = 8
"""Characters of an id that a terminal shows."""


def show_verdict(verdict: Verdict) -> None:
    """Print the result of each task, the output files and the failure on standard output."""
    with suppress(OSError):  # nobody reading is no reason to end otherwise, as for `say`
        show_tasks(verdict.info.get("tasks", ()))
    for line in describe_result(verdict.info):
        say(line)
    if verdict.failure:
        say(verdict.failure.headline)
        for line in verdict.failure.cause.stderr or verdict.failure.cause.log:
            say(f"    {line}")


def show_tasks(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Print the result of each task of a job's record, and what it took."""
    rows = [
        (
            f"{index}:{task.get('module', '')}",
            task.get("result", ""),
            f"{task['seconds']:.1f} s" if "seconds" in task else "",
            f"{task['cpu_seconds']:.1f} s" if "cpu_seconds" in task else "",
            decimal(task["peak_memory"]) if "peak_memory" in task else "",
        )
        for index, task in enumerate(tasks)
    ]
    print_table(("task", "result", "wall time", "CPU time", "peak memory"), rows)


def describe_result(info: Mapping[str, Any]) -> Iterator[str]:
    """The warnings, results and outputs of a job, and why tasks were skipped, a line each."""
    outputs: dict[str, int] = {}
    for index, task in enumerate(info.get("tasks", ())):
        label = f"task {index}:{task.get('module')}"
        if reason := task.get("reason"):
            yield f"Skipped {label}: {reason}"
        for warning in task.get("warnings", ()):
            yield f"Warning of {label}: {warning}"
        for name, value in task.get("results", {}).items():
            yield f"Result of {label}: {name} = {value if isinstance(value, str) else json.dumps(value)}"
        outputs |= {output["path"]: output["bytes"] for output in task.get("outputs", ())}
    for path, size in outputs.items():
        yield f"Output: {path} ({decimal(size)})"


def show_problems(reports: Sequence[tuple[int, str, Sequence[str], Sequence[str]]]) -> None:
    """Print the problems of each task of a job: index, module, problems, warnings."""
    for index, module, problems, warnings in reports:
        count = len(problems)
        say(f"{index}:{module}: " + (f"{count} problem{'s' * (count > 1)}" if count else "ok"))
        for line in (*problems, *(f"warning: {warning}" for warning in warnings)):
            say(f"    {line}")


def show_modules(client: Client, limits: Mapping[str, Limits], found: Sequence[Inspection | Failure]) -> bool:
    """Print the enabled modules and their problems; returns whether there are no problems."""
    wrong: list[str] = []
    inspections = [each if isinstance(each, Inspection) else Inspection() for each in found]
    width = max(map(len, client.modules), default=0)
    for (name, target), inspection, each in zip(client.modules.items(), inspections, found, strict=True):
        problems = [tool.problem for tool in inspection.tools if tool.problem]
        if isinstance(each, Failure):
            problems = [each.cause.message]
        elif inspection.encoders and all(encoder.problem for encoder in inspection.encoders):
            problems.append("none of its encoders works")
        wrong += [f"{name}: {problem}" for problem in problems]
        say(f"{name:<{width}}  {'cannot run' if problems else 'ready':<10}  {target}")
        tools = (f"{tool.name} {tool.version}  {tool.path}".rstrip() for tool in inspection.tools)
        for line in filter(None, (inspection.file, *tools, *_changed_limits(limits[name]))):
            say(f"    {line}")
    for line in wrong:
        say(line)
    for line in path_warnings(client.paths):
        say(f"Warning of {line}")
    for name, target, package in list_installed():
        if target not in client.modules.values():
            say(f"Installed, and not enabled: {name} = true  # {package}, {target}")
    for name, inspection in zip(client.modules, inspections, strict=True):
        _show_encoders(name, inspection)
    return not wrong


def is_terminal() -> bool:
    """Return whether a person sees standard output."""
    return bool(sys.stdout) and sys.stdout.isatty()


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]], below: Sequence[str] = ()) -> None:
    """Print rows under their names. On a terminal, the widest columns are cut so that all fit.

    `below` has a line for each row to follow it, whole, if it is not empty.
    """
    cells = [[plain(re.sub(r"\s", " ", str(cell))) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    if is_terminal():
        room = shutil.get_terminal_size().columns - 2 * (len(widths) - 1)
        while sum(widths) > room and max(widths) > SHORT_ID:
            widths[widths.index(max(widths))] -= 1
    click.secho(_line(names, widths), bold=is_terminal())
    for row, more in zip(cells, below or [""] * len(cells), strict=True):
        say(_line(row, widths))
        if more:
            say(f"    {more}")


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(map(_fit, row, widths)).rstrip()


def _fit(cell: str, width: int) -> str:
    return set_cell_size(cell, width) if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"


def plain(text: str) -> str:
    """Text from jobs, files or a server without control characters, which could steer a terminal."""
    return printable(text.encode("utf-8", "backslashreplace"))


def say(text: str, err: bool = False) -> None:
    """Print a line as `plain` text, on standard output or standard error."""
    with suppress(OSError):  # nobody reading is no reason to end otherwise
        click.echo(plain(text), err=err)


def _changed_limits(limits: Limits) -> Iterator[str]:
    """The limits that are not the client's defaults, on lines of 76 characters."""
    default = Limits()
    changed = [name for name in Limits.__struct_fields__ if getattr(limits, name) != getattr(default, name)]
    if changed:
        yield from textwrap.wrap(
            "limits: " + ", ".join(f"{name} {_limit(getattr(limits, name))}" for name in changed), 76
        )


def _show_encoders(name: str, inspection: Inspection) -> None:
    """Print the encoders of a tool that work here, and why the others do not, if they were tried."""
    if not inspection.encoders:
        return
    working = [encoder.name for encoder in inspection.encoders if not encoder.problem]
    click.echo(f"\n{name}: {len(working)} of {len(inspection.encoders)} encoders work here:")
    click.echo(textwrap.fill(", ".join(working), 80, initial_indent="    ", subsequent_indent="    "))
    if len(working) < len(inspection.encoders):
        click.echo("and these do not:")
    for encoder in inspection.encoders:
        if encoder.problem:
            click.echo(f"    {encoder.name}: {encoder.problem}")


def show_configuration(
    settings: Settings, client: Client, limits: Mapping[str, Limits], environ: Mapping[str, str]
) -> None:
    """Print all settings and limits, each with its source. Secrets are not shown."""
    rows = [
        (setting.name, _setting(setting.name, getattr(settings, field)), _source(setting.name, environ))
        for field, setting in SETTINGS.items()
    ]
    rows.append(("SISYPHUS_STATE_DIR", settings.state_directory, _source("SISYPHUS_STATE_DIR", environ)))
    rows.append(("SISYPHUS_CONFIG", str(client.file), client.chosen_by))
    _show_rows("Settings", rows)
    _show_rows("Directories to import modules from", [(path, "", "configuration file") for path in client.paths])
    if command := client.hooks.get("job_ended"):
        _show_rows("Hooks", [("job_ended", shlex.join(command), "configuration file")])
    for name, given in client.settings.items():
        _show_rows(
            f"Settings of module {name}", [(key, text, "configuration file") for key, text in given.shown.items()]
        )
    for name, target in client.modules.items():
        own = client.limits.get(name, {})
        _show_rows(
            f"Module {name}: {target}, and its limits",
            [
                (field, _limit(getattr(limits[name], field)), _limit_source(field, name, own, client.limits))
                for field in Limits.__struct_fields__
            ],
        )


def _show_rows(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    if not rows:
        return
    click.echo(f"{title}:")
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        click.echo(f"  {name:<{width}}  {value or '-'}  ({source})")


def _setting(name: str, value: object) -> str:
    if name in SECRETS:
        return "set, not shown" if value else ""
    if name == "API_URL":
        return shown_url(str(value))
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _source(name: str, environ: Mapping[str, str]) -> str:
    if is_set(name, environ):
        return "environment"
    return "kept in the state directory" if name == "HOST_UUID" else "default"


def _limit(value: object) -> str:
    if value is None:
        return "off"
    if isinstance(value, IoPriority):
        return value.io_class if value.level is None else f"{value.io_class}:{value.level}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "text", value))


def _limit_source(field: str, name: str, own: Mapping[str, object], general: Mapping[str, object]) -> str:
    if field in own:
        return f"configuration file, for {name}"
    return "configuration file" if field in general else "default"
