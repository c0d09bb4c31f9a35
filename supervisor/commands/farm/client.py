"""The client of the API server for the commands.

It is not the worker's `Session`, which repeats calls, cuts them short and logs outages: a person who has typed a
command wants one answer or one sentence. Of another server than ours it asks what that server has.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import requests
from urllib3.exceptions import HTTPError

from app.config import load_settings, shown_url
from app.formats import SERVER_HEADER, quote_part
from supervisor.api.client import describe_refusal
from supervisor.api.errors import SessionError, reason
from supervisor.api.transport import CALL_TIMEOUT, CONNECT_TIMEOUT, Response, make_session, through_proxy
from supervisor.commands import FAILED, WRONG
from supervisor.commands.display import say
from supervisor.commands.shared import give_up

PAGE = 1000
"""Jobs that one call lists, at most: the server's bound."""

FULL_ID = 36
"""Characters of a UUID: an id of this length need not be looked up."""

MOST_SHOWN = 20
"""Candidates that are shown where a beginning is not enough."""

ENDED = ("completed", "failed", "cancelled")
"""States of jobs that have ended."""

_F = TypeVar("_F", bound=Callable[..., int | None])


class Document(dict[str, Any]):
    """What the server has told in response to a request: a missing key says that it is no Sisyphus server.

    Attributes:
        is_done: The status was 2xx.
    """

    def __init__(self, request: str, response: Response) -> None:
        told = response.json()
        super().__init__(told if isinstance(told, dict) else {})
        self.is_done = response.status // 100 == 2
        self._request = request

    def __missing__(self, key: str) -> Any:
        raise SessionError(f"the response to {self._request} is not that of a Sisyphus server: it has no {key}")


class FarmClient:
    """Calls the API server. Every method raises `SessionError` if a call fails; the text names no server."""

    def __init__(self, url: str | None) -> None:
        """`url` is that of `--url`; else API_URL counts. An id of this machine is not needed, and none is made."""
        environ = os.environ | ({"API_URL": url} if url else {}) | {"HOST_UUID": "operator"}
        settings = load_settings(environ, Path())
        self.url = shown_url(settings.api_url)
        self._through = through_proxy(settings.api_url)
        self._session = make_session(settings)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def call(self, method: str, path: str, body: Any = None, accept: tuple[int, ...] = (), **query: Any) -> Response:
        """Make a call; returns a response with a 2xx status or one of `accept`. A query's `None` is left out.

        A 404 of a proxy that has lost the server is never accepted.
        """
        response = self._send(method, path, body, query)
        if response.is_doubtful and response.status in accept:
            self.call("GET", "/status/health").json()  # which fails while a proxy answers for a server that it has lost
            response = self._send(method, path, body, query)
        if response.status // 100 != 2 and response.status not in accept:
            raise SessionError(describe_refusal(response), response.status, response.body)
        return response

    def _send(self, method: str, path: str, body: Any, query: Mapping[str, Any]) -> Response:
        try:
            answer = self._session.request(
                method,
                self.url + path,
                params={name: value for name, value in query.items() if value is not None},
                json=body,
                timeout=(CONNECT_TIMEOUT, CALL_TIMEOUT),
                allow_redirects=False,
            )
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise SessionError(reason(error) + self._through) from error
        is_ours = SERVER_HEADER in answer.headers
        return Response(answer.status_code, answer.content, is_ours, through=self._through)

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Return the JSON object at a path. A key that it lacks is a `SessionError`, too."""
        return self.ask("GET", path, **query)

    def ask(self, method: str, path: str, body: Any = None, accept: tuple[int, ...] = (), **query: Any) -> Document:
        """Make a call; returns the JSON object that is the response. A key that it lacks is a `SessionError`, too."""
        return Document(f"{method} {path}", self.call(method, path, body, accept, **query))

    def find(self, path: str) -> dict[str, Any] | None:
        """Return the JSON object at a path; `None` where there is nothing (404)."""
        response = self.call("GET", path, accept=(404,))
        return None if response.status == requests.codes.not_found else Document(f"GET {path}", response)

    @functools.cached_property
    def is_ours(self) -> bool:
        """Whether the server is this project's own."""
        response = self.call("GET", "/status/health")
        response.json()  # or it is a page of a proxy, which tells nothing of the server
        return response.from_embedded_server

    def need_ours(self, what: str) -> None:
        """Refuse what another server than ours cannot do."""
        if not self.is_ours:
            raise SessionError(f"this server cannot {what}: it is not the one of `sisyphus-client serve`")

    # --- jobs ---

    def jobs(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield jobs as `GET /jobs` lists them, the newest first; of another server, those that wait or run.

        A `limit` says how many are wanted, at least: they come in pages of so many.
        """
        if not self.is_ours:
            yield from self._unfinished(query)
            return
        cursor, limit = None, min(query.pop("limit", PAGE), PAGE)
        while True:
            page = self.get("/jobs", limit=limit, cursor=cursor, **query)
            yield from page["jobs"]
            if (cursor := page.get("next")) is None:
                return

    def _unfinished(self, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        kept = ("job_id", "job_title", "worker_id", "hostname")
        running = [
            {name: worker.get(name, "") for name in kept} | {"state": "running", "modules": [worker.get("task", "")]}
            for worker in self.workers()
            if worker.get("job_id")
        ]
        queued = [
            {name: job.get(name, "") for name in kept[:2]}
            | {"state": "queued", "modules": [task.get("module", "") for task in job["tasks"]]}
            | ({"added_at": job["added"]} if "added" in job else {})
            for job in self.queue()
        ]
        for job in (*queued[::-1], *running):
            worker = query.get("worker") in (None, job.get("worker_id"), job.get("hostname"))
            wanted = query.get("state") in (None, job["state"]) and query.get("module") in (None, *job["modules"])
            if wanted and worker and (query.get("q") or "").lower() in job["job_title"].lower():
                yield job

    def find_job(self, beginning: str) -> str:
        """Return the id of the job whose id begins so. The command ends if there is none, or more than one."""
        if len(beginning) == FULL_ID:
            return beginning
        query = {"id": beginning} if self.is_ours else {}
        # Our server also finds a job that was handed back by its former id, the only one that its submitter knows.
        found = [job for job in self.jobs(**query) if self.is_ours or job["job_id"].startswith(beginning)]
        names = [f"{job['job_id']}  {job['state']}  {' '.join(job['job_title'].split())}" for job in found]
        return one_of("job", beginning, names).split()[0]

    def record(self, job_id: str) -> dict[str, Any] | None:
        """Return everything of a job in any state; of another server: of a job that waits or runs."""
        path = f"/jobs/{quote_part(job_id)}"
        if self.is_ours:
            return self.find(f"{path}/record")
        job = self.find(path)
        if job is None:
            return None
        running = [worker for worker in self.workers() if worker.get("job_id") == job_id]
        worker = {name: running[0][name] for name in ("worker_id", "hostname")} if running else {}
        times = {"added_at": job["added"]} if "added" in job else {}
        return {"state": "running" if running else "queued", "attempts": [], **job, **times, **worker}

    def queue(self) -> list[dict[str, Any]]:
        """Return the jobs that wait, in full."""
        return self._all("/queue", "queue")

    def _all(self, path: str, key: str) -> list[dict[str, Any]]:
        return [each for each in self.get(path)[key] or () if each]  # sisyphus-server 1.3.3 has null for none

    def posted_again(self, job_id: str) -> str | None:
        """Return the new id of a job that a worker has handed back, if it did: its first task names the old one."""
        for job in self.queue():
            if _handed_back(job) == job_id:
                return str(job["job_id"])
        for worker in self.workers():
            if worker.get("job_id") and _handed_back(self.find(f"/jobs/{quote_part(worker['job_id'])}")) == job_id:
                return str(worker["job_id"])
        return None

    def post(self, body: Mapping[str, Any]) -> str:
        """Put a job into the queue; returns its id. After an error the job may be in the queue all the same."""
        if body.keys() & {"priority", "requires"}:
            self.need_ours("keep a priority or tags that a job requires")
        return str(self.ask("POST", "/queue", body)["job_id"])

    # --- workers ---

    def workers(self) -> list[dict[str, Any]]:
        """Return the live workers."""
        return self._all("/workers", "workers")

    def find_workers(self, name: str) -> list[str]:
        """Return the ids of a machine's workers, one for each slot; or of one of them, by its id.

        `name` is a host name, an id, or the beginning of one. The command ends if that is none, or several machines.
        """
        answer = self.get("/workers")
        known = {
            each["worker_id"]: each.get("hostname", "")
            for each in (*(answer["workers"] or ()), *answer.get("lost", ()))
        }
        if name in known:
            return [name]
        found = [key for key, host in known.items() if host == name]
        found = found or [key for key, host in known.items() if key.startswith(name) or host.startswith(name)]
        hosts = {known[key] for key in found}
        if len(hosts) != 1 or not name:
            one_of("worker", name, [f"{key}  {known[key]}" for key in found])
        return found


def farm_command(name: str) -> Callable[[_F], click.Command]:
    """Make a command of a function, whose first parameters are the farm and whether to print JSON.

    The function returns the exit status; `None` is 0.
    """

    def decorate(function: _F) -> click.Command:
        @click.command(name)
        @click.option("--url", metavar="URL", help="The API server (default: API_URL).")
        @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        @functools.wraps(function)
        def command(url: str | None, as_json: bool, **options: Any) -> None:
            with contextlib.closing(FarmClient(url)) as farm:
                try:
                    status = function(farm, as_json, **options)
                except SessionError as error:
                    give_up(f"API server {farm.url}: {error}")
            sys.exit(status)

        return command

    return decorate


def print_json(document: Any) -> None:
    """Print a document for other programs."""
    click.echo(json.dumps(document, indent=2))


def tell_none(words: str) -> int:
    """Say that there is nothing; returns the exit status for it."""
    say(words, err=True)
    return FAILED


def one_of(kind: str, beginning: str, found: list[str]) -> str:
    """Return the only one that was found by its beginning. The command ends if there is none, or more than one."""
    if not found or (len(found) == 1 and not beginning):  # a script's variable that is not set is not the only one
        sys.exit(tell_none(f"There is no {kind} whose id or name begins with {beginning!r}."))
    if len(found) > 1:
        say(f"{beginning!r} is the beginning of several; write more of one:", err=True)
        for each in found[:MOST_SHOWN]:
            say(f"  {each}", err=True)
        sys.exit(WRONG)
    return found[0]


def _handed_back(job: Any) -> Any:
    match job:
        case {"tasks": [{"handed_back": former}, *_]}:
            return former
    return None
