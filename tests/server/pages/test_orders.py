"""Every button: what it does on the server, and what it says."""

import json
from typing import Any

from playwright.sync_api import Page, expect

from tests.server.pages.conftest import Look, until_live
from tests.server.pages.test_views import beat, populate
from tests.support.api_server import BEAT, Api
from tests.support.waiting import until

BEATING = BEAT | {"status": "in_progress"}
ASKING = {"Accept": "application/json"}


def press(page: Page, name: str, sure: bool = False, says: str = "") -> None:
    """Press a button, be sure about it, and wait for what the page says."""
    page.get_by_role("button", name=name, exact=True).click()
    if sure:
        page.get_by_role("button", name="Yes").click()
    if says:
        expect(page.locator("#status")).to_contain_text(says)


def test_the_queue_is_put_in_order(api: Api, look: Look) -> None:
    """A job is moved to the head, gets a priority, is cancelled; the queue is stopped and started again."""
    ids = {name: api.submit(name) for name in ("first", "second", "third", "fourth")}
    page = look(api.url, "/farm/queue")
    titles = page.locator("tbody .title")
    expect(titles).to_have_text(list(ids))

    press(page, "Move third to the head of the queue", says="the next one")
    expect(titles).to_have_text(["third", "first", "second", "fourth"])
    page.get_by_label("Priority of fourth").fill("7")
    page.keyboard.press("Enter")
    expect(titles).to_have_text(["fourth", "third", "first", "second"])
    press(page, "Cancel first", sure=True, says="cancelled")
    expect(titles).to_have_text(["fourth", "third", "second"])
    assert api.queued() == [ids[name] for name in ("fourth", "third", "second")]

    press(page, "Stop the queue", says="stopped")
    assert api("GET", "/queue").json()["attributes"]["disabled"]
    press(page, "Start the queue", says="again")
    assert not api("GET", "/queue").json()["attributes"]["disabled"]


def test_a_refused_order_is_told(api: Api, look: Look) -> None:
    """What the server refuses is said in its own words, and the view shows what is true."""
    job_id = api.submit("gone")
    page = look(api.url, "/farm/queue", failing=True)
    page.route("**/events", lambda route: route.abort())  # the view is not told
    page.reload()
    api("DELETE", f"/jobs/{job_id}")

    press(page, "Move gone to the head of the queue", says="No job with this id is queued.")
    expect(page.locator("tbody tr")).to_have_count(0)


def test_workers_are_paused_and_disabled(api: Api, look: Look) -> None:
    """Pause, resume, disable and enable reach the worker's orders, and its state shows them."""
    api.poll()
    beat(api, "w" * 8, api.submit())
    page = look(api.url, "/farm/workers")
    row, name = page.locator("tbody tr"), "encoder01 wwwwwwww"

    def order(word: str, state: str) -> None:
        wanted = {"cancel": [], "paused": word == "Pause", "disabled": word == "Disable"}
        press(page, f"{word} {name}")
        until(
            lambda: api("POST", "/workers/" + "w" * 8, BEATING, headers=ASKING).json() == wanted, f"the order: {word}"
        )
        expect(row).to_contain_text(state)

    order("Pause", "paused")
    order("Resume", "running")
    order("Disable", "disabled")
    order("Enable", "running")


def test_data_is_stored_edited_and_deleted(api: Api, look: Look) -> None:
    """A set of options is made, changed and deleted; text that is no JSON is refused, and nothing is stored."""
    page = look(api.url, "/farm/data", failing=True)
    page.get_by_label("Name").fill("opus/2")
    editor = page.get_by_label("The object, as JSON")
    editor.fill('{"codec": "libopus",}')
    press(page, "Store it", says="The body is not JSON")
    assert api("GET", "/data").json() == {"names": []}

    editor.fill('{"codec": "libopus"}')
    press(page, "Store it", says="It is stored.")
    expect(page.get_by_role("heading", level=1)).to_have_text("opus/2 of ffmpeg")
    editor.fill('{"codec": "aac"}')
    press(page, "Store it", says="It is stored.")
    assert api("GET", "/data/ffmpeg/opus%2F2").json()["codec"] == "aac"
    press(page, "Delete", sure=True, says="It is deleted.")
    assert page.url.endswith("/farm/data")
    assert api("GET", "/data/ffmpeg/opus%2F2").status_code == 404


DROP = """([zone, files]) => {
    const carried = new DataTransfer();
    for (const [name, text] of files) carried.items.add(new File([text], name, {type: "application/json"}));
    for (const kind of ["dragover", "drop"]) {
        zone.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true}));
    }
}"""


def test_job_files_are_dropped_and_chosen(api: Api, look: Look) -> None:
    """Of each file the page says first what is wrong with it, and where; what is right is submitted."""
    page = look(api.url, "/farm/queue")
    good: dict[str, Any] = {"tasks": [{"module": "ffmpeg", "data": {"sources": ["a.mkv"]}}], "requires": ["gpu"]}
    good["$schema"] = "./job.schema.json"  # of an editor
    files = [
        ["broken.json", '{\n  "tasks": [}\n'],
        ["wrong.json", '{"job_title": "x", "tasks": [{"data": 1}], "taks": 0}'],
        ["good.json", json.dumps(good)],
    ]
    zone = page.locator(".drop").element_handle()
    page.evaluate(DROP, [zone, files])
    checked = page.locator("#checked")

    expect(checked.locator("li")).to_have_count(3)
    for words in (
        "Line 2, column 13",
        "tasks[0].module: missing key",
        "tasks[0].data: expected an object",
        "taks: unknown",
    ):
        expect(checked).to_contain_text(words)
    expect(checked.locator("li").last).to_contain_text("It will wait, for now: no worker is alive.")
    assert api.queued() == []
    press(page, "Submit good.json", says="good is in the queue.")
    page.get_by_label("Drop job files here, or choose them:").set_input_files(
        {"name": "next.json", "mimeType": "application/json", "buffer": json.dumps(good).encode()}
    )
    press(page, "Submit next.json", says="next is in the queue.")
    listed = api("GET", "/jobs").json()["jobs"]
    assert [(job["job_title"], job["requires"]) for job in listed] == [("next", ["gpu"]), ("good", ["gpu"])]


def test_a_job_runs_again(api: Api, look: Look) -> None:
    """A failed job runs again as a copy, or as it was edited."""
    ids = populate(api)
    page = look(api.url, f"/farm/jobs/{ids['failed']}")
    press(page, "Run it again", says="A copy is in the queue.")
    copy = api("GET", f"/jobs/{page.url.rpartition('/')[2]}/record").json()
    assert (copy["state"], copy["retry_of"]) == ("queued", ids["failed"])

    page.get_by_text("The job, as JSON").first.click()
    editor = page.locator("#again-json")
    job = json.loads(editor.input_value())
    editor.fill(json.dumps(job | {"job_title": "edited", "priority": 3}))
    press(page, "Check it")
    press(page, "Submit The job", says="edited is in the queue.")
    newest = api("GET", "/jobs?limit=1").json()["jobs"][0]
    assert (newest["job_title"], newest["priority"], newest["modules"]) == ("edited", 3, ["ffmpeg"])


def test_a_running_job_is_cancelled(api: Api, look: Look) -> None:
    """The order to cancel a running job waits for its worker, and the page says so until the job has ended."""
    job_id = populate(api)["running"]
    page = look(api.url, "/farm/running")
    until_live(page)
    press(page, "Cancel film running", sure=True, says="its worker stops it")

    expect(page.locator(f"#job-{job_id}")).to_contain_text("being cancelled")
    orders = api("POST", "/workers/busy-1", BEATING | {"job_id": job_id}, headers={"Accept": "application/json"}).json()
    assert orders["cancel"] == [job_id]
    info = {"error": {"reason": "cancelled"}, "message": "Cancelled"}
    api("PATCH", f"/jobs/{job_id}/completed", {"failed": True, "info": info})
    expect(page.locator("main")).to_contain_text("Nothing runs.")
    until(lambda: api("GET", f"/jobs/{job_id}/record").json()["state"] == "cancelled", "the job to be cancelled")
