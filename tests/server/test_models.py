"""Bodies that are wrong: each is refused, in words."""

import json
import re
from typing import Any

import pytest

from tests.support.api_server import BEAT, BODIES, JOB, OUTCOME, UNKNOWN, Api

OPTIONAL = {"task", "job_id", "job_title", "progress", "info"}
"""Keys of a heartbeat that may be missing."""

NO_TAG = "a tag is not empty, and has no comma and no space around it"

MALFORMED = {
    "empty": b"",
    "torn": b'{"disabled": tru',
    "not an object": b"[]",
    "null": b"null",
    "a string": b'"disabled"',
    "a number": b"1",
    "NaN": b"NaN",
    "NaN inside": b'{"disabled": NaN, "job_title": NaN, "progress": NaN, "info": {"x": NaN}}',
    "Infinity inside": b'{"tasks": [{"module": "a", "data": {"x": -Infinity}}], "job_title": "a"}',
    "a number too large": b'{"progress": 1e999, "tasks": [{"module": "a", "data": {"x": 1e999}}], "job_title": "a"}',
    "a whole number too long": b'{"x": ' + b"9" * 5000 + b"}",
    "a whole number that is no float": json.dumps(BEAT | JOB | OUTCOME | {"info": {"fps": 10**308}}).encode(),
    "two values": b"{}{}",
    "single quotes": b"{'disabled': true}",
    "not UTF-8": b'{"job_title": "\xff"}',
    "half a UTF-16": b"\xff\xfe{",
    "a bomb of lists": b"[" * 60_000,  # 64 KiB is the most that heartbeats may have
    "a bomb of objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep": b'{"info":' * 150 + b"1" + b"}" * 150,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize(("method", "path"), [*BODIES, ("POST", "/data/a/malformed")])
def test_a_malformed_body_is_refused(api: Api, method: str, path: str, body: bytes) -> None:
    """What is no JSON object is a 400 with a message, on every route, and changes nothing."""
    answer = api(method, path, body)

    assert answer.status_code == 400, answer.text
    assert answer.json()["message"]
    assert api.poll() is None
    assert api.status("GET", "/data/a/malformed") == 404


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_every_key_is_checked(api: Api, method: str, path: str) -> None:
    """Unknown keys, nulls, wrong types and missing keys are each a 400 that names the key."""
    good = BODIES[method, path]
    wrong = {"unknown_key": good | {"unknown_key": 1}}
    for key, value in good.items():
        other: Any = {} if not isinstance(value, dict) else "text"
        wrong |= {f"{key}: null": good | {key: None}, f"{key}: {other}": good | {key: other}}
        if key not in OPTIONAL or path == f"/jobs/{UNKNOWN}/completed" or path == "/queue":
            wrong[f"{key} missing"] = {name: value for name, value in good.items() if name != key}
    answers = {case: api(method, path, body) for case, body in wrong.items()}

    for case, answer in answers.items():
        assert answer.status_code == 400, case
        assert re.split("[: ]", case)[0] in answer.json()["message"], case


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (JOB | {"tasks": [1]}, "tasks[0]: expected an object"),
        (JOB | {"tasks": [{}]}, "tasks[0].module: missing key"),
        (JOB | {"tasks": [{"module": "a"}, {"module": None}]}, "tasks[1].module: expected a string"),
        (JOB | {"tasks": [{"module": "a", "data": None}]}, "tasks[0].data: expected an object"),
        (JOB | {"tasks": [{"module": "a", "data": []}]}, "tasks[0].data: expected an object"),
        (JOB | {"tasks": {}}, "tasks: expected a list"),
        (JOB | {"job_title": 1}, "job_title: expected a string"),
        (JOB | {"job_name": "a"}, "job_name: unknown key"),
        ({"job_title": "a"}, "tasks: missing key"),
        (JOB | {"tasks": [{"module": "a", "\ud800": 1}]}, "tasks[0]: expected keys without lone surrogates"),
        (JOB | {"x" * 1000: 1}, "x" * 60 + ": unknown key"),
        *((JOB | {"requires": ["gpu", tag]}, f"requires[1]: {NO_TAG}") for tag in ("", " gpu", "gpu,fast")),
    ],
)
def test_a_wrong_job_is_refused_in_words(api: Api, body: dict[str, Any], complaint: str) -> None:
    """The message says which key is wrong, and what is expected."""
    answer = api("POST", "/queue", json.dumps(body))

    assert (answer.status_code, answer.json()) == (400, {"message": complaint})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (BEAT | {"status": "busy"}, "status: expected 'startup', 'idle' or 'in_progress'"),
        (BEAT | {"progress": True}, "progress: expected a number"),
        (BEAT | {"progress": "43"}, "progress: expected a number"),
        (BEAT | {"online_at": 1}, "online_at: expected a string"),
        (BEAT | {"info": []}, "info: expected an object"),
    ],
)
def test_a_wrong_heartbeat_is_refused_in_words(api: Api, body: dict[str, Any], complaint: str) -> None:
    """A heartbeat that says nonsense is refused, and makes no record."""
    answer = api("POST", "/workers/w-wrong", body)

    assert (answer.status_code, answer.json()) == (400, {"message": complaint})
    assert api.status("GET", "/workers/w-wrong") == 404


@pytest.mark.parametrize("value", [0, 1, "true", None, []])
def test_a_verdict_is_a_plain_yes_or_no(api: Api, value: Any) -> None:
    """`failed` is true or false and nothing that could pass for it; the job goes on running."""
    job_id = api.submit()
    api.poll()

    assert api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME | {"failed": value}) == 400
    assert api.status("GET", f"/jobs/{job_id}") == 200
    assert api.status("GET", f"/jobs/{job_id}/completed") == 404
