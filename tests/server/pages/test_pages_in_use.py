"""What the page tells while the farm moves on, and what happens to an order that is given twice."""

import signal
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import update

from server.storage.database import ServerDatabase
from server.storage.store import Store
from server.storage.tables import jobs
from tests.server.pages.conftest import Look, until_live
from tests.server.postgresql import postgresql
from tests.support.api_server import BEAT, JOB, OUTCOME, Api, Process, serving
from tests.support.waiting import until

READ_AGAIN = "import('/farm/static/refresh.js').then((module) => module.refresh())"


def end(api: Api, failed: bool = False) -> str:
    """A job that has ended; its id."""
    job_id = api.submit("ended")
    while api.poll() != job_id:
        pass
    api("PATCH", f"/jobs/{job_id}/completed", OUTCOME | {"failed": failed})
    return job_id


def test_page_says_that_the_database_is_away(look: Look) -> None:
    """While views cannot be read the page is not live, though the stream of events stands; then it is again."""
    database = postgresql().make_database()
    with serving(database) as api:
        page = look(api.url, "/farm/queue", failing=True)
        until_live(page)
        postgresql().allow_connections(database, False)
        page.evaluate(READ_AGAIN)
        expect(page.locator("#connection")).to_contain_text("Server away since")
        other = look(api.url, "/farm/queue", failing=True)
        expect(other.get_by_role("heading", level=1)).to_have_text("Not possible")
        expect(other.locator("main")).to_contain_text("The database failed")
        postgresql().allow_connections(database, True)

        for tab in (page, other):
            expect(tab.locator("#connection")).to_have_text("Live", timeout=60_000)
            expect(tab.get_by_role("heading", level=1)).to_have_text("Queue")
        api.submit("after that")
        expect(page.locator("tbody")).to_contain_text("after that")


def test_page_says_that_the_server_hangs(tmp_path: Path, look: Look) -> None:
    """A server that stands still closes no connection; the page finds out."""
    server = Process(tmp_path, tmp_path / "jobs.db")
    with closing(server):
        page = look(server.start(), "/farm/queue", failing=True)
        until_live(page)
        server.send(signal.SIGSTOP)
        page.evaluate(READ_AGAIN)
        expect(page.locator("#connection")).to_contain_text("Server away since", timeout=60_000)
        server.send(signal.SIGCONT)

        expect(page.locator("#connection")).to_have_text("Live", timeout=60_000)


def test_page_shows_the_last_failures(tmp_path: Path, look: Look) -> None:
    """A job that has just failed is shown first, though it was submitted long before others that failed days ago."""
    with closing(ServerDatabase(tmp_path / "jobs.db")) as database:
        store = Store(database)
        for number in range(9):
            job_id = store.submit(f"job {number}", JOB["tasks"])
            store.take()
            store.complete(job_id, True, {"message": "no"})
        for is_chosen, age in ((jobs.c.number > 2, timedelta(days=3)), (jobs.c.number == 2, timedelta(hours=1))):
            with database.begin() as db:
                db.execute(update(jobs).where(is_chosen).values(ended_at=datetime.now(UTC) - age))
    with serving(tmp_path / "jobs.db") as api:
        page = look(api.url)
        expect(page.locator(".tiles")).to_contain_text("Failed in 24 h2")
        expect(page.locator(".failed .title")).to_have_text(["job 0", "job 1"])


def test_page_counts_places_anew(api: Api, look: Look) -> None:
    """The second page of the queue tells the places that its jobs have now."""
    for number in range(250):
        api.submit(f"job {number}")
    page = look(api.url, "/farm/queue")
    page.get_by_role("link", name="Next 100").click()
    first = page.locator("tbody tr").first
    expect(first).to_contain_text("job 100")
    expect(page.locator("main")).to_contain_text("250 jobs wait; 101 to 200 are shown")
    until_live(page)
    for _ in range(40):
        api.poll()

    expect(first.locator("[data-label=Place]")).to_have_text("61")
    expect(page.locator("main")).to_contain_text("210 jobs wait; 61 to 160 are shown")


def test_page_shows_the_times_that_it_filters_by(api: Api, look: Look) -> None:
    """The fields for times hold, in UTC, what a link says in another zone, without a time of day, or with seconds."""
    page = look(api.url, "/farm/history")
    times = {
        "2026-01-31T22:00%2B02:00": "2026-01-31T20:00",
        "2020-01-01": "2020-01-01T00:00",
        "2026-01-31T22:00:30.1234567": "2026-01-31T22:00:30.123",
    }
    for given, shown in times.items():
        page.goto(f"{api.url}/farm/history?since={given}")
        expect(page.locator("[name=since]")).to_have_value(shown)
    page.goto(f"{api.url}/farm/history?before=0001-01-01T00:00%2B23:59")
    expect(page.get_by_text("is not a time")).to_be_visible()


def test_page_answers_a_wrong_address_with_a_view(api: Api, look: Look) -> None:
    """Who follows a wrong link gets words and the way on, not the answer of a call."""
    page = look(api.url, failing=True)
    for path, words in (("/farm/nothing", "Not Found"), ("/farm/history?cursor=x", "cursor: expected a valid integer")):
        page.goto(api.url + path)
        expect(page.locator("main .bad")).to_contain_text(words)
        expect(page.get_by_role("link", name="Workers")).to_be_visible()
    assert api("GET", "/nothing").json() == {"message": "Not Found"}


@pytest.mark.parametrize("hours", [-3, 3])
def test_page_knows_the_servers_time(api: Api, look: Look, hours: int) -> None:
    """A browser whose clock is hours off tells no wrong ages."""
    page = look(api.url)
    page.clock.install(time=datetime.now(UTC) + timedelta(hours=hours))
    api("POST", "/workers/w", BEAT | {"online_at": str(datetime.now(UTC) - timedelta(hours=5.5))})
    page.goto(f"{api.url}/farm/workers")

    expect(page.locator("tbody")).to_contain_text("5 h ago")


def test_page_follows_a_priority_that_others_set(api: Api, look: Look) -> None:
    """A field in which a priority was written shows what another tab sets later; but not what is not yet sent."""
    ids = [api.submit("first"), api.submit("second")]
    page = look(api.url, "/farm/queue")
    until_live(page)
    fields = [page.get_by_label(f"Priority of {name}") for name in ("first", "second")]
    fields[0].fill("7")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("new priority")
    fields[1].fill("9")
    for job_id in ids:
        api("PATCH", f"/jobs/{job_id}", {"priority": 3})

    expect(fields[0]).to_have_value("3")
    expect(fields[1]).to_have_value("9")


def test_page_runs_a_job_once_more_and_not_twice(api: Api, look: Look) -> None:
    """A second press, while the call or the way to the next view takes long, is none."""
    page = look(api.url, f"/farm/jobs/{end(api)}")
    until_live(page)
    held: list[Route] = []
    page.route("**/retry", lambda route: held.append(route))
    button = page.get_by_role("button", name="Run it again")
    button.click()
    _wait_for(page, held)
    page.evaluate("document.querySelector('h1').textContent = 'is read again'")
    page.evaluate(READ_AGAIN)
    expect(page.get_by_role("heading", level=1)).to_have_text("ended")
    button.evaluate("(button) => setInterval(() => button.click(), 1)")
    held.pop().continue_()

    expect(page.locator("#status")).to_contain_text("A copy is in the queue.")
    assert not held
    assert len(api.queued()) == 1


def _wait_for(page: Page, held: list[Route]) -> None:
    until(lambda: page.evaluate("1") and held, "the call")


def test_page_asks_who_clicks_twice(api: Api, look: Look) -> None:
    """A double click on what asks first is no answer, even where the answer appears in the place of the button."""
    job_id = api.submit("kept")
    page = look(api.url, "/farm/queue")
    cancel, yes = (page.get_by_role("button", name=name, exact=True) for name in ("Cancel kept", "Yes"))
    cancel.click()
    box = yes.bounding_box()
    assert box
    page.get_by_role("button", name="No, leave it").click()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    cancel.evaluate(MOVE, [x, y])
    page.mouse.dblclick(x, y)

    expect(yes).to_be_visible()
    page.mouse.click(x, y)
    expect(page.locator("#status")).to_contain_text("The job is cancelled.")
    assert api("GET", f"/jobs/{job_id}/record").json()["state"] == "cancelled"


MOVE = """(button, [x, y]) => {
    document.body.append(button); // a row does not let it stand where a person may have scrolled it to
    Object.assign(button.style, { position: "fixed", left: `${x - 20}px`, top: `${y - 10}px` });
}"""


def test_page_shows_a_job_once_that_is_checked_twice(api: Api, look: Look) -> None:
    """A double click on the button that checks a job makes no two buttons that submit it."""
    page = look(api.url, "/farm/queue")
    page.get_by_text("Write one").click()
    held: list[Route] = []
    page.route("**/farm/check*", lambda route: held.append(route))
    page.get_by_role("button", name="Check it").dblclick()
    until(lambda: page.evaluate("1") and len(held) == 2, "both calls")
    for route in held:
        with page.expect_response("**/farm/check*"):
            route.continue_()

    expect(page.locator("#checked")).to_contain_text("The job")
    assert page.evaluate("new Promise((done) => setTimeout(done)).then(() => checked.children.length)") == 1


def test_page_is_live_where_a_browser_keeps_nothing(api: Api, look: Look) -> None:
    """In a browser that refuses to keep data of any site, the page follows the farm, and orders work."""
    page = look(api.url)
    page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    page.goto(f"{api.url}/farm/jobs/{end(api)}")
    until_live(page)
    page.get_by_role("button", name="Run it again").click()

    expect(page.locator(".facts .badge").first).to_have_text("queued")


def test_page_logs_out_in_the_second_tab_too(tmp_path: Path, look: Look) -> None:
    """Who has logged out in another tab comes to the login by the button; other sites' forms take no cookie."""
    with serving(tmp_path / "jobs.db", token="token") as api:
        page = look(api.url, failing=True)
        page.get_by_label("Token").fill("token")
        page.keyboard.press("Enter")
        until_live(page)
        page.context.clear_cookies()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()

        answers = [
            api("POST", "/farm/logout", headers={"Origin": origin}, allow_redirects=False)
            for origin in (api.url, "http://x.example")
        ]
        assert [answer.status_code for answer in answers] == [303, 303]
        assert ["Set-Cookie" in answer.headers for answer in answers] == [True, False]
