"""The token, strangers, and the pages."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import OUTCOME, Api, connected, serving


def test_a_token_is_asked_for(database: Path | str) -> None:
    """With a token, every call but the health and the pages needs it, and without it nothing happens."""
    with serving(database, token="s3cret") as api, connected(api.url) as stranger:
        job_id = api.submit()
        refused = {
            answer.request.method: answer
            for answer in (
                stranger("GET", "/queue/poll"),
                stranger("DELETE", "/queue"),
                stranger("POST", "/queue", b"no JSON at all"),
                stranger("PATCH", f"/jobs/{job_id}/completed", OUTCOME),
            )
        }
        wrong = [
            stranger("GET", "/queue", headers={"Authorization": value}).status_code
            for value in ("Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer ünï")
        ]
        unknown = stranger.status("GET", "/nope")
        opened = [stranger.status("GET", path) for path in ("/status/health", "/doc/", "/doc/openapi.json", "/doc")]
        closed = [stranger.status("GET", path) for path in ("/status/config", "/docs", "/doc%2F", "/data/doc/x")]
        lower = stranger("GET", "/queue", headers={"Authorization": "bearer  s3cret"}).status_code
        page = stranger("GET", "/doc/openapi.json").json()
        polled = api.poll()

    for answer in refused.values():
        assert answer.status_code == 401
        assert answer.json() == {"message": "The token is missing or wrong."}
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert wrong == [401] * len(wrong)
    assert unknown == 401
    assert opened == [200] * 4
    assert closed == [401] * 4
    assert lower == 200
    assert page["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert polled == job_id


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:5000"}, 200),
        ({"Host": "192.0.2.7"}, 200),
        ({"Host": "[2001:db8::1]:80"}, 200),
        ({"Host": "FARM:5000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[bad"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://page.example"}, 200),
    ],
)
def test_strangers_are_refused(guarded: Api, headers: dict[str, str], status: int) -> None:
    """Neither a name that is not the server's nor another site's page gets through, unless the operator said so."""
    answer = guarded("GET", "/queue", headers=headers)
    link = guarded("GET", "/farm/queue", headers=headers | {"Sec-Fetch-Mode": "navigate"})

    assert answer.status_code == status
    assert ("message" in answer.json()) == (status == 403)
    assert link.status_code == (status if "Host" in headers else 200)


def test_a_page_that_may_use_the_server_can(guarded: Api) -> None:
    """Its browser is told so, before a request and with the answer."""
    origin = {"Origin": "https://page.example"}
    asked = guarded("OPTIONS", "/queue", headers=origin | {"Access-Control-Request-Method": "PATCH"})
    answer = guarded("GET", "/queue", headers=origin)

    assert asked.status_code == 200
    assert "PATCH" in asked.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server that has a name, and a page of another site that may use it."""
    database = tmp_path_factory.mktemp("guarded") / "jobs.db"
    with serving(database, allow_host=("farm",), cors_origin=("https://page.example",)) as api:
        yield api


def test_the_pages_need_nothing_from_outside(api: Api) -> None:
    """The OpenAPI page and all that it loads come from the server itself."""
    page = api("GET", "/doc/")
    loaded = re.findall(r'(?:src|href)="([^"]+)"|url: *\'([^\']+)\'', page.text)
    parts = [api("GET", first or second) for first, second in loaded]

    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert len(parts) == 4
    assert [part.status_code for part in parts] == [200] * 4
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert '"validatorUrl": null' in page.text
    assert api("GET", "/doc", allow_redirects=False).headers["Location"] == "/doc/"


ROUTES = {
    "/queue": "GET POST PATCH DELETE",
    "/queue/poll": "GET",
    "/jobs": "GET",
    "/jobs/{job_id}": "GET PATCH DELETE",
    "/jobs/{job_id}/record": "GET",
    "/jobs/{job_id}/retry": "POST",
    "/jobs/{job_id}/cancel": "POST",
    "/jobs/{job_id}/log": "GET PUT",
    "/jobs/{job_id}/completed": "GET PATCH",
    "/workers": "GET",
    "/workers/{worker_id}": "GET POST PATCH DELETE",
    "/data": "GET",
    "/data/{module}": "GET",
    "/data/{module}/{name}": "GET POST DELETE",
    "/events": "GET",
    "/metrics": "GET",
    "/status/config": "GET",
    "/status/farm": "GET",
    "/status/health": "GET",
}


def test_the_schema_tells_of_every_route(api: Api) -> None:
    """Every call of the contract is on the page, with a summary, an answer's form, and no 422."""
    schema = api("GET", "/doc/openapi.json").json()
    calls = {
        f"{method.upper()} {path}": call
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
    }

    told: dict[str, set[str]] = {}
    for call in calls:
        told.setdefault(call.split()[1], set()).add(call.split()[0])
    assert told == {path: set(methods.split()) for path, methods in ROUTES.items()}
    for name, call in calls.items():
        assert call["summary"], name
        assert "422" not in call["responses"], name
        assert {"200", "204"} & set(call["responses"]), name
        has_body = name.split()[0] in {"POST", "PATCH"} and not name.endswith(("/retry", "/cancel"))
        assert ("requestBody" in call) == has_body, name
