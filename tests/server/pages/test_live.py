"""What the page does by itself: it follows the farm, loses the server and finds it again, and knows who may look."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect
from sqlalchemy import Engine, event

from server.storage.database import ServerDatabase
from server.storage.tables import to_text
from tests.server.pages.conftest import Look, until_live
from tests.server.pages.test_views import VIEWS, beat, populate
from tests.support.api_server import Api, Process, connected, serving
from tests.support.client import Client
from tests.support.media import encode, make_clip
from tests.support.supervised import Supervised, job
from tests.support.waiting import until

TOKEN = "spam & eggs 4711"


def test_a_real_encode_is_seen_to_move(api: Api, look: Look, supervised: Supervised, tmp_path: Path) -> None:
    """An encode begins, moves and is cancelled before the eyes of who looks on; another leaves its log and sizes."""
    clip = make_clip(tmp_path / "clip.mkv", seconds=60, audio=False)
    page = look(api.url, "/farm/running")
    until_live(page)
    page.evaluate("window.same = true")

    def submit(title: str, **reading: Any) -> str:
        made = job(encode(clip, tmp_path / f"{title}.mkv", reading, preset="ultrafast"), job_title=title)
        return str(api("POST", "/queue", made).json()["job_id"])

    with closing(Client(api, supervised)) as client:
        client.start()
        job_id = submit("moves", re=True)
        expect(page.get_by_role("progressbar")).to_have_attribute("aria-label", "Progress of moves", timeout=60_000)
        seen = [until(lambda least=least: page.evaluate(SHOWN, least), "progress", 60) for least in (0, 2, 4)]
        expect(page.locator(f"#job-{job_id}")).to_contain_text("fps")
        page.get_by_role("button", name="Cancel moves").click()
        page.get_by_role("button", name="Yes").click()
        expect(page.locator("main")).to_contain_text("Nothing runs.", timeout=60_000)
        same = page.evaluate("window.same")
        cancelled = api("GET", f"/jobs/{job_id}/record").json()
        job_id = submit("ends")
        page.goto(f"{api.url}/farm/jobs/{job_id}")
        expect(page.locator(".facts .badge").first).to_have_text("completed", timeout=60_000)
        expect(page.locator("main")).to_contain_text("ends.mkv")
        until(lambda: api.status("GET", f"/jobs/{job_id}/log") == 200, "the log")
        assert client.stop() == 0

    assert same
    assert seen == sorted(set(seen))
    assert cancelled["state"] == "cancelled"
    assert not (tmp_path / "moves.mkv").exists()


SHOWN = "(least) => { const shown = document.querySelector('progress')?.value ?? 0; return shown > least && shown }"


def test_a_server_that_goes_and_comes(tmp_path: Path, look: Look) -> None:
    """The page says since when the server is away, and shows what is new when it is back; nobody loads it again."""
    server = Process(tmp_path, tmp_path / "jobs.db")
    with contextlib.ExitStack() as stack:
        stack.callback(server.kill)
        api = stack.enter_context(connected(server.start()))
        page = look(api.url, "/farm/queue", failing=True)
        until_live(page)
        page.evaluate("window.same = true")
        server.kill()
        expect(page.locator("#connection")).to_contain_text("Server away since")
        server.start()
        api.submit("after the restart")

        expect(page.locator("tbody")).to_contain_text("after the restart")
        expect(page.locator("#connection")).to_have_text("Live")
        assert page.evaluate("window.same")


def test_login(tmp_path: Path, look: Look) -> None:
    """Behind a token, the page asks for it, refuses a wrong one, keeps a cookie for the right one, and forgets it."""
    with serving(tmp_path / "jobs.db", token=TOKEN) as api:
        ids = populate(api)
        page = look(api.url, f"/farm/jobs/{ids['failed']}?x=1", failing=True)
        field = page.get_by_label("Token")
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This is not the token of this server.")
        field.fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#error")).to_be_visible()
        assert page.url.endswith("?x=1")
        until_live(page)
        cookie = page.context.cookies()[0]

        assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Strict", False)
        assert TOKEN not in cookie["value"]
        page.get_by_role("button", name="Run it again").click()
        expect(page.locator("#status")).to_contain_text("A copy is in the queue.")
        page.get_by_role("button", name="Log out").click()
        expect(field).to_be_visible()
        page.goto(f"{api.url}/farm/queue")
        expect(field).to_be_visible()


def test_a_cookie_is_good_for_this_page_alone(tmp_path: Path) -> None:
    """With the cookie, calls of other origins, of a changed cookie and of one of another token are refused."""
    with serving(tmp_path / "jobs.db", token=TOKEN) as api:
        own = {"Origin": api.url}
        form = {"token": TOKEN, "next": "//evil.example"}
        answer = requests.post(f"{api.url}/farm/login", form, headers=own, allow_redirects=False)
        cookie = answer.headers["Set-Cookie"].partition(";")[0]

        def patch(cookie: str, **headers: str) -> int:
            headers = {"Cookie": cookie} | {name.replace("_", "-"): value for name, value in headers.items()}
            return requests.patch(f"{api.url}/queue", json={"disabled": False}, headers=headers).status_code

        assert answer.headers["Location"] == "/"
        assert patch(cookie, **own) == 200
        assert patch(cookie, **own, Sec_Fetch_Site="same-origin") == 200
        assert patch(cookie) == 401
        assert patch(cookie, Origin="http://127.0.0.1:1") == 401
        assert patch(cookie, Origin="null") == patch(cookie, Origin="http://[") == 401
        assert patch(cookie, **own, Sec_Fetch_Site="same-site") == 401
        end, _, signature = cookie.partition("=")[2].partition(".")
        for changed in (f"{int(end) + 1}.{signature}", f"{end}.{'0' * 64}", f"{end}.", "", "x", f"1.{signature}"):
            assert patch(f"sisyphus_session={changed}", **own) == 401
        assert (
            requests.get(f"{api.url}/jobs", headers={"Cookie": cookie, "Sec-Fetch-Site": "same-site"}).status_code
            == 401
        )
        assert requests.get(f"{api.url}/", allow_redirects=False).headers["Location"] == "/farm/login?next=%2F"
        other = requests.post(
            f"{api.url}/farm/login", form, headers={"Origin": "http://x.example"}, allow_redirects=False
        )
        assert other.status_code == 403


def test_headers_of_every_view(api: Api) -> None:
    """Every view and file says what a browser may load and do: nothing of others, no script in the text."""
    for path in (*VIEWS, "/farm/login", "/farm/jobs/x", "/farm/static/main.js"):
        headers = api("GET", path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "same-origin")


# --- large farms ---


def fill(place: Path, **counts: int) -> None:
    """Put so many jobs of each state into a database."""
    document = to_text({"job_title": "many", "tasks": [{"module": "ffmpeg", "data": {"sources": ["a" * 200]}}]})
    now = int(time.time() * 1e6)
    with closing(ServerDatabase(place)) as database, database.begin() as db:
        db.exec_driver_sql("INSERT INTO needs (need, modules, tags) VALUES (1, '[\"ffmpeg\"]', '[]')")
        for state, count in counts.items():
            ended_at = now if state == "completed" else None
            db.exec_driver_sql(
                "INSERT INTO jobs (job_id, state, priority, position, title, document, need, attempts, added_at,"
                " started_at, ended_at) VALUES (?, ?, 0, 0, ?, ?, 1, '[]', ?, ?, ?)",
                [(f"{state}-{n}", state, f"job {n}", document, now, now, ended_at) for n in range(count)],
            )


@pytest.mark.slow
def test_views_of_large_farms(tmp_path: Path) -> None:
    """With 100 000 ended and 10 000 queued jobs, most views cost as much as with none; some count an index, once."""
    fill(tmp_path / "jobs.db", completed=100_000, queued=10_000)
    with counted_steps() as steps, serving(tmp_path / "jobs.db") as api:

        def cost(path: str) -> int:
            before = sum(steps)
            assert api("GET", path).status_code == 200
            return sum(steps) - before

        costs = {path: cost(path) for path in (*VIEWS, "/farm/jobs/completed-5", "/farm/history?state=queued")}
        # The numbers of the farm count the queue and the last day, and jobs of one state are sorted.
        linear = {path: costs.pop(path) for path in ("/", "/farm/queue", "/farm/history?state=queued")}

    assert {path: cost for path, cost in costs.items() if cost > 10_000} == {}
    assert {path: cost for path, cost in linear.items() if cost > 30 * 110_000} == {}


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Instructions of SQLite's virtual machine, a hundred each: unlike seconds, a busy machine adds none."""
    steps: list[int] = []

    def count(connection: sqlite3.Connection, _: object) -> None:
        connection.set_progress_handler(lambda: steps.append(100), 100)

    event.listen(Engine, "connect", count)
    try:
        yield steps
    finally:
        event.remove(Engine, "connect", count)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_workers_at_work(tmp_path: Path, look: Look) -> None:
    """A thousand jobs move without a flicker: rows, focus and the place scrolled to stay, and the page responds."""
    fill(tmp_path / "jobs.db", running=1000)
    with serving(tmp_path / "jobs.db", vanished_after=600) as api:

        def beat_all(progress: float) -> None:
            for number in range(1000):
                beat(api, f"w{number}", f"running-{number}", hostname=f"host{number // 8}", progress=progress)

        beat_all(40.0)
        page = look(api.url, "/farm/running")
        until_live(page)
        expect(page.get_by_role("progressbar")).to_have_count(1000)
        page.get_by_label("Cancel job 700", exact=True).focus()
        place = page.evaluate("scrollY")
        page.evaluate("window.row = document.getElementById('job-running-700')")
        page.evaluate(WATCH)
        for progress in (50.0, 60.0):
            beat_all(progress)
        api("PATCH", "/jobs/running-0/completed", {"failed": False, "info": {}})  # the view is read again
        _await_bar(page, "#job-running-999", 60)
        expect(page.get_by_role("progressbar")).to_have_count(999, timeout=60_000)

        assert page.evaluate("window.row.isConnected")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Cancel job 700"
        assert abs(page.evaluate("scrollY") - place) < 400  # one card left the list above
        assert page.evaluate("window.removed") == 1
        page.goto(f"{api.url}/farm/workers?q=host77")
        expect(page.locator("tbody tr")).to_have_count(8)


WATCH = """() => {
    window.removed = 0;
    new MutationObserver((changes) => {
        for (const change of changes) for (const node of change.removedNodes) window.removed += node.nodeType === 1;
    }).observe(document.querySelector(".cards"), { childList: true });
}"""


def _await_bar(page: Page, row: str, progress: int) -> None:
    until(lambda: page.locator(f"{row} progress").evaluate("bar => bar.value") == progress, "the bar to move")
