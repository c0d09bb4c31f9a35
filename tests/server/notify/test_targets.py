"""`[tool.server.notify]`: what is wrong is told at the start, in one line without a secret."""

import contextlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from server.errors import ServerError
from server.notify.targets import read_notify
from tests.support.supervised import Supervised

HOOK = {"webhook": "https://farm.example/hook", "secret": "${NOTIFY_SECRET}"}
ENVIRONMENT = {"NOTIFY_SECRET": "pepper-4711", "NOTIFY_EMPTY": "", "OTHER": "pepper-4711"}


IMGHDR = "ignore:'imghdr' is deprecated:DeprecationWarning"
"""Of Apprise, which needs it only where Python has it."""


@pytest.mark.filterwarnings(IMGHDR)
@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"evry": "1m"}, "evry: unknown key (known: every, stuck_after, targets)"),
        ({"stuck_after": 30}, "stuck_after: 30 is not a time such as 90s or 30m"),
        ({"targets": {"ops": {}}}, "targets.ops: expected one of webhook and apprise"),
        ({"targets": {"ops": HOOK | {"apprise": "json://pepper-4711"}}}, "targets.ops: expected one of"),
        ({"targets": {"ops": HOOK | {"url": "x"}}}, "targets.ops.url: unknown key"),
        ({"targets": {"ops": HOOK | {"events": ["burnt"]}}}, "targets.ops.events: expected a list of"),
        ({"targets": {"ops": HOOK | {"events": []}}}, "targets.ops.events: expected a list"),
        ({"targets": {"ops": HOOK | {"webhook": "pepper-4711"}}}, "targets.ops.webhook: expected an address"),
        ({"targets": {"ops": HOOK | {"webhook": "https://h:pepper-4711/"}}}, "targets.ops.webhook: expected an"),
        ({"targets": {"ops": {"webhook": "https://farm.example"}}}, "targets.ops.secret: a webhook is signed"),
        ({"targets": {"ops": HOOK | {"secret": "${NOTIFY_NONE}"}}}, "targets.ops.secret: NOTIFY_NONE is not set"),
        ({"targets": {"ops": HOOK | {"secret": "${NOTIFY_EMPTY}"}}}, "targets.ops.secret: NOTIFY_EMPTY is not set"),
        ({"targets": {"ops": HOOK | {"secret": "${OTHER}"}}}, "targets.ops.secret: ${OTHER}: only variables NOTIFY_…"),
        ({"targets": {"ops": HOOK | {"secret": "file:/nowhere"}}}, "targets.ops.secret: the file that it names cannot"),
        ({"targets": {"ops": {"apprise": "spam://pepper-4711"}}}, "targets.ops.apprise: Apprise knows no such URL"),
    ],
)
def test_what_is_wrong_is_told(table: dict[str, Any], complaint: str) -> None:
    """Each mistake is one line that names the key, and shows no value of a secret."""
    with pytest.raises(ServerError) as refused:
        read_notify(table, ENVIRONMENT)

    assert str(refused.value).startswith(f"tool.server.notify.{complaint}")
    assert "\n" not in str(refused.value)
    assert "pepper" not in str(refused.value)


def test_values_from_elsewhere(tmp_path: Path) -> None:
    """Secrets come from variables, also within a URL, and from files."""
    (tmp_path / "secret").write_text("salt\n")
    hook = {"webhook": "https://anna:${NOTIFY_SECRET}@farm.example/", "secret": f"file:{tmp_path}/secret"}
    (target,) = read_notify({"targets": {"ops": hook}}, ENVIRONMENT).targets

    assert (target.webhook, target.secret) == ("https://anna:pepper-4711@farm.example/", "salt")
    assert target.events == ("failed", "queue stuck", "worker lost")


class Missing:
    """Finds that a package is not installed."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> ModuleSpec | None:
        if name == "apprise":
            raise ModuleNotFoundError(name)
        return None


@pytest.fixture
def without_apprise() -> Iterator[None]:
    known = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "apprise"}
    sys.meta_path.insert(0, Missing)  # type: ignore[arg-type]
    with contextlib.ExitStack() as stack:
        stack.callback(sys.modules.update, known)
        stack.callback(sys.meta_path.remove, Missing)
        yield


@pytest.mark.usefixtures("without_apprise")
def test_apprise_is_missing() -> None:
    """Without the package, a target that needs it is refused with the command that installs it."""
    with pytest.raises(
        ServerError, match=r"ops\.apprise: .*pip install '\./sisyphus_client-.*\.whl\[server,notify\]'$"
    ):
        read_notify({"targets": {"ops": {"apprise": "json://localhost"}}})


@pytest.mark.parametrize("command", [["serve"], ["start", "--standalone"]], ids=["serve", "standalone"])
def test_the_commands_read_it(supervised: Supervised, command: list[str]) -> None:
    """Both commands that run a server read the table from their configuration file, and end with 2 if it is wrong."""
    supervised.config.write_text(supervised.config.read_text() + '\n[tool.server.notify]\nevery = "now"\n')
    done = supervised.command(*command, "--port", "0")

    assert done.returncode == 2
    assert done.stderr == "tool.server.notify.every: 'now' is not a time such as 90s or 30m\n"
