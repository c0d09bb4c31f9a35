"""What all commands have in common: beginnings of ids, servers that are not there or not ours, statuses."""

import json

import pytest

from tests.supervisor.commands.farm.conftest import GOOD, Operator
from tests.support.farm import Farm, says


def test_beginnings_of_ids(operator: Operator) -> None:
    """The beginning of one id will do; that of several is answered with all of them, and that of none with status 1."""
    ids = [operator.post(GOOD) for _ in range(17)]  # two of them begin alike
    twice = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)

    one, several, none = (operator("show", beginning) for beginning in (ids[0][:13], twice, "x"))

    assert (one.returncode, one.stdout[:36]) == (0, ids[0])
    assert several.returncode == 2
    assert all(each in several.stderr for each in ids if each[0] == twice)
    assert (none.returncode, none.stderr) == (1, "There is no job whose id or name begins with 'x'.\n")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"API_URL": "http://127.0.0.1:1"}, "API server http://127.0.0.1:1: Connection refused"),
        ({"API_URL": "http://user:secret@127.0.0.1:1"}, "API server http://127.0.0.1:1: Connection refused"),
        ({"API_URL": "nonsense"}, "API_URL: 'nonsense' is not the address of a server (such as http://farm:5000)"),
        ({"API_URL": "OURS/x"}, "API server OURS/x: status 404: Not Found"),
        ({"API_TIMEZONE": "Nope"}, "API_TIMEZONE: 'Nope' is not a time zone of this system (such as Europe/Berlin)"),
        ({"API_TOKEN": "wr ong"}, "API_TOKEN: what it holds is not a bearer token (printable ASCII without spaces)"),
    ],
)
def test_no_server(operator: Operator, environ: dict[str, str], words: str) -> None:
    """A server that cannot be reached, and wrong settings, are one line without secrets, and status 2."""
    url = operator.api.url
    done = operator("jobs", **{name: value.replace("OURS", url) for name, value in environ.items()})

    assert (done.returncode, done.stdout, done.stderr) == (2, "", words.replace("OURS", url) + "\n")


def test_url_and_proxy(operator: Operator) -> None:
    """--url comes before API_URL, and no proxy is used for a loopback address."""
    done = operator("workers", "--json", "--url", operator.api.url, API_URL="http://x", HTTP_PROXY="http://127.0.0.1:1")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["workers"][0]["hostname"] == "encoder01"


@pytest.mark.parametrize("body", ["{}", "[]", "null"])
def test_other_answers(farm: Farm, operator: Operator, body: str) -> None:
    """What answers with JSON and is no Sisyphus server has not confirmed the job, which is said in a sentence."""
    farm.misbehave("POST /queue", says(body))

    done = operator("submit", str(operator.write("job.json", GOOD)), API_URL=farm.url)

    assert (done.returncode, done.stdout) == (1, "")
    words = "the response to POST /queue is not that of a Sisyphus server: it has no job_id"
    assert done.stderr == f"API server {farm.url} has not confirmed the job: {words}\n"


CANNOT = "it is not the one of `sisyphus-client serve`"


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("jobs", 0, ["queued", "a good one"]),
        ("jobs --state failed", 2, [CANNOT]),
        ("show ID", 0, ["queued", "0:reporter"]),
        ("show ID --log", 2, [CANNOT]),
        ("retry ID", 2, [CANNOT]),
        ("move ID", 2, [CANNOT]),
        ("top", 0, ["queue 1", "no worker is alive"]),
        ("workers", 1, []),
        ("pause --queue", 0, ["queue: paused"]),
        ("enable --queue", 0, ["queue: enabled"]),
        ("data list", 2, [CANNOT]),
        ("data get ffmpeg none", 1, ["Nothing is kept for ffmpeg under the name none."]),
        ("submit job.json --priority 3", 1, [CANNOT]),
        ("submit job.json", 0, []),
        ("cancel ID", 0, ["deleted"]),
    ],
)
def test_another_server(farm: Farm, operator: Operator, command: str, status: int, words: list[str]) -> None:
    """Of sisyphus-server, each command does what it can, or says in a sentence what that server cannot do."""
    operator.write("job.json", GOOD)
    job_id = farm.post(GOOD)

    done = operator(*command.replace("ID", job_id[:9]).split(), API_URL=farm.url)

    assert done.returncode == status, done.stdout + done.stderr
    assert all(word in done.stdout + done.stderr for word in words), done.stdout + done.stderr
