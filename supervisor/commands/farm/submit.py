"""`submit`: puts jobs into the queue, from files or from a template, and watches them to their ends."""

import glob
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from app.formats import STRICT_NUMBERS
from supervisor.api.errors import SessionError
from supervisor.commands import COMPLETED, FAILED, job_files
from supervisor.commands.display import describe_result, say
from supervisor.commands.farm.client import FarmClient, farm_command, print_json, tell_none
from supervisor.commands.farm.follow import follow
from supervisor.commands.farm.tables import info_of
from supervisor.commands.shared import give_up
from supervisor.jobs.model import JobError

UNKNOWN = 3
"""Exit status: nobody tells how the job ended."""

_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*")
_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")

_F = TypeVar("_F", bound=Callable[..., Any])


def job_options(command: _F) -> _F:
    """Add what `submit` and `watch` have in common: --set, --priority and --requires."""
    for option in (
        click.option(
            "--requires", metavar="TAG", multiple=True, help="Only for workers with this tag; may be repeated."
        ),
        click.option("--priority", type=int, metavar="N", help="Higher ones come first; 0 is the default."),
        click.option(
            "--set",
            "changes",
            metavar="PATH=VALUE",
            multiple=True,
            help="Such as tasks[0].data.crf=20; may be repeated.",
        ),
    ):
        command = option(command)
    return command


@farm_command("submit")
@click.argument("files", metavar="[JOB.json|DIR|-]...", nargs=-1)
@click.option("--template", metavar="JOB.json", help="Submit this job for each file of --each.")
@click.option("--each", metavar="'GLOB'", multiple=True, help="Files for the template, such as '/srv/in/**/*.mkv'.")
@job_options
@click.option("--wait", is_flag=True, help="Wait for the end; status 0 if completed, 1 if not, 3 if unknown.")
def submit_command(
    farm: FarmClient,
    as_json: bool,
    files: tuple[str, ...],
    template: str | None,
    each: tuple[str, ...],
    wait: bool,
    **options: Any,
) -> int:
    """Of a directory, its *.json are submitted; - is standard input. In the texts of a template, {path} is the file's
    absolute path, {dir} its directory, and {stem} its name without the extension. No job is submitted if one of the
    files is no job.
    """
    if bool(template) != bool(each) or bool(files) == bool(template):
        raise click.UsageError("name job files, or a template with --template and its files with --each")
    bodies = list(_from_template(template, each, options) if template else _from_files(files, options))
    done: list[dict[str, Any]] = []
    try:
        for number, body in enumerate(bodies):
            try:
                done.append({"job_id": farm.post(body)})
            except SessionError as error:
                of = f"job {number + 1} of {len(bodies)}" if len(bodies) > 1 else "the job"
                say(f"API server {farm.url} has not confirmed {of}: {error}", err=True)
                return FAILED
            if not as_json:
                click.echo(done[-1]["job_id"])
        statuses = [_wait(farm, job, as_json) for job in done] if wait else [COMPLETED]
    finally:  # after an interrupt, too: the jobs are in the queue
        if as_json:
            print_json(done)
    return max(statuses, default=FAILED)


def _from_files(files: tuple[str, ...], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in files:
        inside = sorted(map(str, Path(name).glob("*.json"))) if os.path.isdir(name) else [name]
        if not inside:
            raise JobError(f"{name}: has no *.json")
        for file in inside:
            yield job_body(file, job_files.read_document("/dev/stdin" if file == "-" else file), **options)


def _from_template(template: str, patterns: tuple[str, ...], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    document = job_files.read_document(template)
    files = {file: None for pattern in patterns for file in sorted(glob.glob(pattern, recursive=True))}
    media = [file for file in files if os.path.isfile(file)]
    if not media:
        sys.exit(tell_none(f"No file matches {' '.join(patterns)}."))
    for file in media:
        yield job_body(template, fill(document, file), title=Path(file).stem, **options)


def fill(template: Any, file: str) -> Any:
    """A template with a file's {path}, {dir} and {stem} in its texts."""
    path = os.path.abspath(file)
    words = {"{path}": path, "{dir}": os.path.dirname(path), "{stem}": Path(path).stem}
    # At once, by one expression: a path may hold what looks like another of the words.
    return _map_texts(template, lambda text: re.sub(r"\{(path|dir|stem)\}", lambda found: words[found[0]], text))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case list():
            return [_map_texts(item, change) for item in value]
        case dict():
            return {key: _map_texts(item, change) for key, item in value.items()}
    return value


def job_body(
    name: str, document: Any, changes: tuple[str, ...], priority: int | None, requires: tuple[str, ...], title: str = ""
) -> dict[str, Any]:
    """A job as it is posted, from the document of a file.

    Raises:
        JobError: it is no job, or a change does not fit it.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            give_up(f"--set {change}: expected PATH=VALUE")
        _change(document, path, text)
    job = job_files.read_job_of(title or name, document, job_files.modules_of(document))
    body: dict[str, Any] = {"job_title": job.job_title, "tasks": document["tasks"]}
    return body | ({"priority": priority} if priority else {}) | ({"requires": list(requires)} if requires else {})


def _change(document: Any, path: str, text: str) -> None:
    """Set what stands at a path, such as `tasks[0].data.crf`, to a value: JSON, or else the text."""
    parts = [name or int(index) for name, index in _PART.findall(path)] if _PATH.fullmatch(path) else []
    try:
        value = json.loads(text, **STRICT_NUMBERS)
    except (ValueError, RecursionError):
        value = text
    for number, part in enumerate(parts):
        has_place = (
            isinstance(document, dict)
            if isinstance(part, str)
            else (isinstance(document, list) and part < len(document))
        )
        if not has_place:
            break
        if number == len(parts) - 1:
            document[part] = value
            return
        document = document.setdefault(part, {}) if isinstance(part, str) else document[part]
    give_up(f"--set {path}: the job has no such place")


def _wait(farm: FarmClient, job: dict[str, Any], as_json: bool) -> int:
    """Wait for a job's end and print the result; returns the exit status."""
    job_id, record = follow(farm, job["job_id"])
    if record is None and not farm.is_ours:
        click.echo("The job has ended. This server does not tell the result; see the worker's log.", err=True)
        return UNKNOWN
    if record is None:
        return tell_none("deleted: the API server has neither the job nor a result of it")
    job |= {"job_id": job_id, "state": record["state"], "info": record.get("info", {})}
    completed = bool(record["state"] == "completed")
    if not as_json:
        for line in (record["job_title"], *describe_result(info_of(job))):
            say(line)
        say(f"completed in {job['info'].get('seconds')} s" if completed else record.get("message", "failed"))
    return COMPLETED if completed else FAILED
