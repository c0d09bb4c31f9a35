"""What each view shows, to whom, and what it never does."""

from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.server.pages.conftest import Look, until_live
from tests.support.api_server import BEAT, JOB, Api

ERROR = {"type": "RunError", "reason": "memory", "step": "run", "module": "ffmpeg", "task": 0, "message": "too much",
         "limit": "8GiB", "value": "8.1GiB", "stderr": ["first words", "last words"]}  # fmt: skip

TASK = {"module": "ffmpeg", "result": "failed", "seconds": 75.2, "cpu_seconds": 3700.0, "peak_memory": 412_000_000,
        "attempts": 2,
        "outputs": [{"path": "/srv/out.mkv", "bytes": 123_456_789}], "warnings": ["half of it"],
        "reason": "already HEVC", "results": {"ssim": 0.98}}  # fmt: skip

WORK = {
    "task": "ffmpeg",
    "progress": 43.5,
    "info": {"phase": "pass 1", "fps": 24.06, "speed": 1.25, "eta_seconds": 200},
}

VIEWS = ("/", "/farm/running", "/farm/queue", "/farm/history", "/farm/workers", "/farm/data")


def beat(api: Api, name: str, job_id: str = "", **more: Any) -> None:
    """Send a heartbeat, of a worker that runs the job."""
    status = {"status": "in_progress", "job_id": job_id, "job_title": "it runs"} | WORK if job_id else {}
    assert api("POST", f"/workers/{name}", BEAT | status | more).status_code == 204


def populate(api: Api, title: str = "film", name: str = "opus") -> dict[str, str]:
    """Give a farm a job in each state, a worker at work, one in trouble, and stored data. Returns the jobs' ids."""
    beat(api, "busy-1")
    api("GET", "/queue/poll?worker_id=busy-1&modules=ffmpeg&tags=gpu")
    data = {"sources": ["/srv/in.mkv"], "output_maps": [{"option_set": name}]}
    tasks = [{"module": "ffmpeg", "data": data, "when": "always"}]
    ids = {state: api.submit(f"{title} {state}") for state in ("failed", "completed", "cancelled")}
    for state in ("failed", "completed"):
        api.poll()
        info = {"worker": "encoder01", "message": "Failed to run task: too much", "error": ERROR, "tasks": [TASK]}
        outcome = {"failed": state == "failed", "info": info if state == "failed" else {"worker": "encoder01"}}
        api("PATCH", f"/jobs/{ids[state]}/completed", outcome)
    api("POST", f"/jobs/{ids['cancelled']}/cancel")
    api("PUT", f"/jobs/{ids['failed']}/log", data="a line of the log\n")
    running = {"job_title": f"{title} running", "tasks": tasks}
    ids["running"] = api("POST", "/queue", running).json()["job_id"]
    api.poll()
    ids["queued"] = api.submit(f"{title} queued")
    ids["routed"] = api("POST", "/queue", JOB | {"job_title": f"{title} routed", "requires": ["av1"]}).json()["job_id"]
    beat(api, "busy-1", ids["running"])
    beat(api, "idle-2", info={"trouble": "no space left"})
    api("POST", f"/data/ffmpeg/{quote(name, safe='')}", {"codec": "libopus"})
    return ids


def test_every_view_shows_the_farm(api: Api, look: Look) -> None:
    """What waits, runs, failed and why, where, and with which data: each is on its view."""
    ids = populate(api)
    page = look(api.url)

    for words in ("Waiting2", "Running1", "Workers2", "Failed in 24 h1"):
        expect(page.locator(".tiles")).to_contain_text(words)
    expect(page.locator("main")).to_contain_text("no live worker has the tag av1")
    expect(page.locator("svg[role=img]")).to_have_attribute(
        "aria-label", "The last 24 hours: 1 jobs completed, 1 failed."
    )
    assert page.locator("svg rect.failed").last.get_attribute("height") == "50.0"

    page.get_by_role("link", name="Running", exact=True).first.click()
    card = page.locator(f"#job-{ids['running']}")
    for words in ("43.5 %", "24.1 fps", "1.25 x", "3 min 20 s", "pass 1", "/srv/in.mkv", "encoder01"):
        expect(card).to_contain_text(words)
    assert page.get_by_role("progressbar").get_attribute("value") == "43.5"

    page.get_by_role("link", name="Workers").click()
    expect(page.locator("#worker-busy-1")).to_contain_text("gpu")
    expect(page.locator("#worker-busy-1 .badge")).to_have_text("running")
    expect(page.locator("#worker-idle-2")).to_contain_text("in trouble")
    expect(page.locator("#worker-idle-2")).to_contain_text("no space left")
    page.get_by_label("Host, state, module, tag or id").fill("gpu")
    page.keyboard.press("Enter")
    expect(page.locator("#worker-idle-2")).to_have_count(0)

    page.get_by_role("link", name="Data").click()
    page.get_by_role("link", name="opus").click()
    expect(page.locator("main")).to_contain_text("film running")

    page.get_by_role("link", name="film running").first.click()
    expect(page.locator(".tasks")).to_contain_text("when: always")


def test_history_has_a_link_for_each_view(api: Api, look: Look) -> None:
    """Filters are in the address, `back` undoes them, and pages follow each other by their cursors."""
    ids = populate(api)
    page = look(api.url, "/farm/history")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(6)

    page.get_by_label("State").select_option("failed")
    page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    assert "state=failed" in page.url
    page.go_back()
    expect(rows).to_have_count(6)

    for query, count in (("worker=encoder01", 2), ("module=nothing", 0), ("q=FILM%20c", 2), ("before=2020-01-01", 0)):
        page.goto(f"{api.url}/farm/history?{query}")
        expect(rows).to_have_count(count)
    page.goto(f"{api.url}/farm/history?since=yesterday")
    expect(page.get_by_text("since: 'yesterday' is not a time")).to_be_visible()

    for number in range(60):
        api.submit(f"more {number}")
    page.goto(f"{api.url}/farm/history")
    page.get_by_role("link", name="Older").click()
    expect(page.locator(f"#job-{ids['failed']}")).to_be_visible()
    page.get_by_role("link", name="Newest").click()
    expect(page.get_by_role("link", name="more 59")).to_be_visible()


def test_a_job_page_says_why_it_failed(api: Api, look: Look) -> None:
    """The reason in words, the limit, standard error, each task's result and cost, and the log are on a job's page."""
    page = look(api.url, f"/farm/jobs/{populate(api)['failed']}")

    expected = ("used more memory than it may", "step run of task 0 (ffmpeg)", "8GiB; it had 8.1GiB", "last words",
                "1 min 15 s", "1 h 1 min", "412 MB", "Attempts", "/srv/out.mkv 123 MB", "half of it", "ssim",
                "0.98", "already HEVC",
                "a line of the log")  # fmt: skip
    for words in expected:
        expect(page.locator("main")).to_contain_text(words)
    page.get_by_text("As it was asked").click()
    expect(page.locator("details pre").first).to_contain_text('"a.mkv"')
    assert look(api.url, f"/farm/jobs/{'0' * 36}", failing=True).title() == "Not here · Sisyphus"


def test_what_keeps_the_queue_is_said_first(api: Api, look: Look) -> None:
    """While nothing runs and jobs wait, the first view says why, and the reason changes with the farm."""
    api.submit()
    page = look(api.url)
    until_live(page)
    why = page.locator("#why")
    expect(why).to_contain_text("1 job waits: no worker is alive")
    beat(api, "w")
    api("GET", "/queue/poll?worker_id=w&modules=cleanup")

    expect(why).to_contain_text("no live worker has the module ffmpeg")
    api("GET", "/queue/poll?worker_id=w&modules=ffmpeg")
    api("DELETE", "/queue")
    api.submit()
    beat(api, "w", info={"trouble": "no space left"})
    expect(why).to_contain_text("in trouble: no space left")
    api("DELETE", "/queue")
    expect(why).to_contain_text("the queue is empty")


HOSTILE = "<img src=x onerror='window.pwned=1'>\"><script>window.pwned=1</script>{{7*7}}\ud800"


def test_text_of_strangers_stays_text(api: Api, look: Look) -> None:
    """Titles, reports, names, logs and records with markup are shown as they are, in every view and in every update."""
    ids = populate(api, HOSTILE, "a'<b>\"../c")
    beat(api, "busy-1", ids["running"], hostname=HOSTILE, info={"phase": HOSTILE, "trouble": HOSTILE})
    api("PUT", f"/jobs/{ids['failed']}/log", data=f"{HOSTILE}".encode(errors="replace"))
    odd = {
        "worker_id": HOSTILE,
        "error": {"reason": ["x"], "stderr": 3, "problems": {}, "message": HOSTILE, "task": {}},
        "tasks": [
            {"outputs": 2, "results": 3, "seconds": "x", "peak_memory": True},
            {"result": "skipped", "reason": HOSTILE, "results": {HOSTILE: HOSTILE, "items": {"a": [HOSTILE]}}},
            1,
        ],
    }
    api.poll()
    api("PATCH", f"/jobs/{ids['queued']}/completed", {"failed": True, "info": odd})
    api.beat("says-little", ids["routed"])
    page = look(api.url)

    for path in (
        *VIEWS,
        "/farm/queue?after=1.0.99999999999999999999&place=2",
        *(f"/farm/jobs/{job_id}" for job_id in ids.values()),
        "/farm/data/ffmpeg/a%27%3Cb%3E%22..%2Fc",
    ):
        assert page.goto(api.url + path).status == 200
        until_live(page)
        assert page.evaluate("window.pwned") is None
        assert page.locator("main img, main script").count() == 0
    page.goto(api.url + "/farm/running")
    until_live(page)
    expect(page.locator("main")).to_contain_text("<img src=x")
    info = {"phase": f"{HOSTILE} 2", "trouble": HOSTILE}
    beat(api, "busy-1", ids["running"], hostname=HOSTILE, progress=50.0, info=info)
    expect(page.locator("[data-fact=phase]")).to_contain_text("{{7*7}}")
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(api: Api, look: Look, scheme: str) -> None:
    """axe-core finds nothing serious in any view, and the narrowest phone need not scroll sideways."""
    ids = populate(api, "a title that is long " + "and-has-a-very-long-word" * 6)
    jobs = [f"/farm/jobs/{ids[state]}" for state in ("failed", "running", "queued")]
    page = look(api.url, color_scheme=scheme)
    axe = Axe()

    for path in (*VIEWS, *jobs, "/farm/data/ffmpeg/opus", "/farm/login"):
        page.goto(api.url + path)
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            found = axe.run(page).response["violations"]
            serious = [(path, width, each["id"], each["nodes"][0]["html"]) for each in found if _is_serious(each)]
            assert not serious
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def _is_serious(violation: dict[str, Any]) -> bool:
    return violation["impact"] in ("serious", "critical")


def test_the_keyboard_alone_is_enough(api: Api, look: Look) -> None:
    """The skip link leads to the content; a job is cancelled with keys, and the focus is never lost."""
    job_id = api.submit("unwanted")
    page = look(api.url, "/farm/queue")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"

    _tab_to(page, "Cancel unwanted")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")  # the question, which asks first
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("The job is cancelled.")
    assert api("GET", f"/jobs/{job_id}/record").json()["state"] == "cancelled"


def _tab_to(page: Page, label: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == label:
            return
    pytest.fail(f"{label} cannot be reached with the Tab key")
