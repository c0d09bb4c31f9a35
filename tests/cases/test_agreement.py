"""`validate`, `run`, `submit` and a worker agree on each file of the examples and of the field's cases."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cases.checks import Result
from tests.cases.client import Client, Services, empty, snapshot
from tests.cases.tasks import JOBS
from tests.cases.test_table import prepare

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {f"examples/{path.stem}": path for path in sorted(EXAMPLES.glob("*.json"))} | JOBS
FOLDERS = sorted({path.parent.name for path in FILES.values()})


def renew(client: Client, name: str) -> None:
    """Empty the client's directory, and prepare it for a file."""
    empty(client.work)
    if name in JOBS:
        prepare(client, name)
    else:
        shutil.copytree(EXAMPLES, client.work / "examples")
        client.put("clip.mkv", directory="demo")


def outcome(result: Result) -> tuple[bool, bool, str, set[str]]:
    """How a job ended: completed or not, refused or not, the reason and the warnings without ids and times.

    The lines of a tool's threads come in another order each time, so of these only the tool is compared.
    """
    reason, warnings = (
        re.sub(r"[0-9a-f-]{36}|0x[0-9a-f]+|\d\d:\d\d:\d\d", "…", text)
        for text in ("" if result.completed else result.reason, result.warnings)
    )
    lines = {re.sub(r"^(ffmpeg|HandBrakeCLI): .*", r"\1", line) for line in warnings.splitlines()}
    return result.completed, result.is_refused, reason, lines


def require_agreement(name: str, client: Client, services: Services) -> None:
    document = json.loads(FILES[name].read_text())
    renew(client, name)
    status, _, _ = client.call("validate", str(client.write(document)))
    ran = client.run(document)
    renew(client, name)
    before = snapshot(client.work)
    submitted = services.submit(document, "--wait")
    ended = submitted.wait(60)

    assert status == int(ran.is_refused), str(ran)
    assert ended == ran.status, services.log(submitted)
    if ended == 2:
        return
    after = snapshot(client.work)
    assert outcome(services.verdict(services.output(submitted).split()[0])) == outcome(ran)
    assert {each for each in before.keys() | after.keys() if before.get(each) != after.get(each)} == ran.changed


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", FOLDERS)
def test_agreement(folder: str, client: Client, services: Services) -> None:
    """What `validate` finds sound, `run` begins; what `run` does, a worker does; what `submit` refuses, all refuse.

    That `run` ends as it does here by the program, too, `test_row` shows.
    """
    services.start_worker()
    found: dict[str, str] = {}
    for name, path in FILES.items():
        if path.parent.name == folder:
            try:
                require_agreement(name, client, services)
            except AssertionError as error:
                found[name] = str(error)

    assert not found
