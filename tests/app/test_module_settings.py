"""`[tool.client.modules.settings.NAME]`: read, shown, and kept secret."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.config import ConfigError, load_client
from app.module_settings import NOT_SHOWN, ModuleSettings, read_module_settings
from tests.support.supervised import Supervised, job

ENVIRON = {"MODULE_TOKEN": "pepper/4711 ü", "MODULE_EMPTY": "", "OTHER": "salt"}


def read(table: Any, environ: dict[str, str] = ENVIRON) -> ModuleSettings:
    return read_module_settings({"m": table}, ["m"], environ)["m"]


def test_values_and_secrets(tmp_path: Path) -> None:
    """Texts take secrets from variables and files, at any depth; what is shown names them only."""
    (tmp_path / "key").write_text("file-secret\n")
    (tmp_path / "lines").write_text("a line\nother line\n")
    table = {
        "url": "http://u:${MODULE_TOKEN}@media",
        "key": f"file:{tmp_path}/key",
        "deep": {"list": [1, True, "${MODULE_TOKEN}"]},
        "hook": "https://me:in-the-file@host/x",
        "odd": "https://me:half@other-half@host/@x",
        "password": "literal",
        "level": 1.5,
        "Authorization": "Basic dTpw",
        "tokens": {"a": ["nested", 20261], "on": True},
    }
    settings = read(table)

    assert settings.values == table | {
        "url": "http://u:pepper/4711 ü@media",
        "key": "file-secret",
        "deep": {"list": [1, True, "pepper/4711 ü"]},
    }
    assert settings.shown == {
        "url": table["url"],
        "key": table["key"],
        "hook": f"https://{NOT_SHOWN}@host/x",
        "odd": f"https://{NOT_SHOWN}@host/@x",
        "deep": '{"list": [1, true, "${MODULE_TOKEN}"]}',
        "password": NOT_SHOWN,
        "level": "1.5",
        "Authorization": NOT_SHOWN,
        "tokens": '{"a": ["(not shown)", "(not shown)"], "on": true}',
    }
    told = settings.redact({"a": ["pepper/4711 ü", "x?t=pepper%2F4711%20%C3%BC"], "file-secret": ("literal", 3)})
    assert read({"key": f"file:{tmp_path}/lines"}).redact(["a line", "second: other line"]) == [
        NOT_SHOWN,
        f"second: {NOT_SHOWN}",
    ]
    assert settings.redact("nested 20261 in-the-file 1.5") == "(not shown) (not shown) (not shown) 1.5"
    assert told == {"a": [NOT_SHOWN, f"x?t={NOT_SHOWN}"], NOT_SHOWN: (NOT_SHOWN, 3)}


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        (3, ": expected a table"),
        ({"m": 3}, ".m: expected a table"),
        ({"n": {}}, ".n: no module of this name is enabled"),
        ({"m": {"a": {"b": ["${MODULE_NONE}"]}}}, ".m.a.b[0]: MODULE_NONE is not set in the environment"),
        ({"m": {"a": "${MODULE_EMPTY}"}}, ".m.a: MODULE_EMPTY is not set"),
        ({"m": {"a": "${OTHER}"}}, ".m.a: ${OTHER}: only variables MODULE_… are kept from tasks"),
        ({"m": {"a": "file:/nowhere"}}, ".m.a: the file that it names cannot be read: No such file"),
        ({"m": {"a": "file:/dev/zero"}}, ".m.a: the file that it names cannot be read: it is no regular file"),
        ({"m": {"a": "file:pipe"}}, ".m.a: the file that it names cannot be read: it is no regular file"),
        ({"m": {"a": "file:bytes"}}, ".m.a: the file that it names cannot be read: it is not UTF-8"),
        ({"m": {"a": "file:empty"}}, ".m.a: the file that it names is empty"),
        ({"m": {"a": "file:large"}}, ".m.a: the file that it names is larger than 65536 bytes"),
        ({"m": {"a": "${MODULE_BYTES}"}}, ".m: a secret is not UTF-8"),
    ],
)
def test_what_is_wrong_is_told(tables: Any, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the key, and no secret."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for name, content in (("bytes", b"\xff"), ("empty", b"\n"), ("large", b"x" * 65537)):
        Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^[:.]") as raised:
        read_module_settings(tables, ["m"], ENVIRON | {"MODULE_BYTES": "\udcff"})

    assert str(raised.value).startswith(complaint)


def test_the_file_is_named(tmp_path: Path) -> None:
    """The client does not start with wrong settings."""
    (tmp_path / "client.toml").write_text("[tool.client.modules.settings.x]\na = 1\n")

    with pytest.raises(ConfigError, match=r"client\.toml: tool\.client\.modules\.settings\.x: no module"):
        load_client(str(tmp_path / "client.toml"), {})


def configure(supervised: Supervised) -> dict[str, str]:
    names = {"leaky": "Leaky", "peeker": "Peeker"}
    supervised.configure(modules={name: f"tests.support.modules.{kind}" for name, kind in names.items()})
    with supervised.config.open("a") as file:
        file.write("[tool.client.modules.settings.leaky]\ntoken = '${MODULE_LEAKY}'\nday = 2026-01-01\n")
    return {**os.environ, "MODULE_LEAKY": "pepper\\4711"}


def test_secrets_are_told_nowhere(supervised: Supervised) -> None:
    """Whatever a module does with its secret, no log, record or listing of the client has it."""
    environment = configure(supervised)
    done = supervised.run(job(("leaky", {})), "--json", "-v", env=environment)
    table = supervised.run(job(("leaky", {})), env=environment)
    plan = supervised.run(job(("leaky", {})), "--dry-run", env=environment)
    config = supervised.command("config", env=environment)

    shown = "".join(each.stdout + each.stderr for each in (done, table, plan, config))
    assert "4711" not in shown
    for words in ("logged <", "printed <", "written <", "warned <", "failed <", "stderr <", "curl -H", "only run can"):
        assert words in shown
    assert "Result of task 0:leaky: token = (not shown)" in table.stdout
    assert "Settings of module leaky:\n  token  ${MODULE_LEAKY}  (configuration file)\n  day " in config.stdout


def test_secrets_of_other_modules(supervised: Supervised) -> None:
    """A module gets its own settings; others' are neither there nor in its environment."""
    environment = configure(supervised)
    done = supervised.run(job(("peeker", {})), env=environment)

    assert "settings = {}\nResult of task 0:peeker: environment = []\n" in done.stdout
