"""Settings and the configuration file: found, read, and refused in one clear line."""

import uuid
from pathlib import Path

import pytest

from app.config import ConfigError, load_client, load_settings
from supervisor.isolation.limits import load_limits
from tests.support.supervised import ENABLED

NO_TIME, NO_AMOUNT = "is not a time", "is not an amount"
NO_NUMBER, NO_PROCESSORS = "is not a whole number", "is not a list of processors"

WRONG = [
    ("[tool.other]", "has no [tool.client] table"),
    ("[tool.client", "is not TOML"),
    ("tool = 1", "has no [tool.client] table"),
    ("[tool]\nclient = 1", "tool.client: expected a table"),
    ("[tool.client.limts]\nmemory = 1", "tool.client.limts: unknown table (known: hooks, limits, modules)"),
    ("[tool.client]\nmodules = 1", "tool.client.modules: expected a table"),
    ("[tool.client.modules]\nenabled = 1", "tool.client.modules.enabled: expected a table"),
    ("[tool.client.modules]\npath = []", "tool.client.modules.path: unknown key"),
    ('[tool.client.modules]\npaths = "x"', "tool.client.modules.paths: expected a list"),
    ('[tool.client.modules.enabled]\nx = "Class"', "tool.client.modules.enabled.x: expected"),
    ("[tool.client.modules.enabled]\nx = 1", "tool.client.modules.enabled.x: expected"),
    ("[tool.client]\nlimits = 1", "tool.client.limits: expected a table"),
    (ENABLED + "[tool.client.limits.ffmpg]\nrun_timeout = 1", "tool.client.limits.ffmpg: no module of this name"),
    (ENABLED + "[tool.client.limits.ffmpeg]\nspeed = 1", "tool.client.limits.ffmpeg.speed: unknown limit"),
]

WRONG_LIMITS = [
    ("run_timeuot = 1", "unknown limit"),
    ('run_timeout = "soon"', f"'soon' {NO_TIME}"),
    ('run_timeout = "-1s"', f"'-1s' {NO_TIME}"),
    ("run_timeout = 0", f"0 {NO_TIME}"),
    ("run_timeout = true", f"True {NO_TIME}"),
    ('run_timeout = "off"', f"'off' {NO_TIME}"),
    ('memory = "8 GiBi"', f"'8 GiBi' {NO_AMOUNT}"),
    ('memory = "120%"', f"'120%' {NO_AMOUNT}"),
    ("memory = 0", f"0 {NO_AMOUNT}"),
    ("processes = 0", f"0 {NO_NUMBER}"),
    ("processes = 1.5", f"1.5 {NO_NUMBER}"),
    ("open_files = 3", f"3 {NO_NUMBER}"),
    ("nice = 20", f"20 {NO_NUMBER}"),
    ("max_attempts = 0", f"0 {NO_NUMBER}"),
    ('ionice = "idle:3"', "'idle:3' is not"),
    ('ionice = "low"', "'low' is not"),
    ('cpus = "9999"', f"'9999' {NO_PROCESSORS}"),
    ('cpus = "0-"', f"'0-' {NO_PROCESSORS}"),
    ("cpus = []", f"[] {NO_PROCESSORS}"),
]

WRONG += [
    (f"{ENABLED}[tool.client.hooks]\njob_ended = 'beep'", "tool.client.hooks.job_ended: expected a list such as"),
    (f"{ENABLED}[tool.client.hooks]\nrun_timeout = 'x'", f"tool.client.hooks.run_timeout: 'x' {NO_TIME}"),
    (
        f"{ENABLED}[tool.client.hooks]\njob_begun = []",
        "tool.client.hooks.job_begun: unknown hook or limit (known: job_ended,",
    ),
    (f"{ENABLED}[tool.server]\nspam = 1", "tool.server.spam: unknown table (known: notify)"),
]

WRONG += [
    (f"{ENABLED}[tool.client.limits]\n{text}", f"tool.client.limits.{text.split()[0]}: {complaint}")
    for text, complaint in WRONG_LIMITS
]


@pytest.mark.parametrize(("text", "complaint"), WRONG)
def test_wrong_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    """A wrong key, unit or value is one line that names the file and the key."""
    file = tmp_path / "c.toml"
    file.write_text(text)

    with pytest.raises(ConfigError) as refused:
        load_limits(load_client(str(file), {}))

    assert str(refused.value).startswith(f"{file}: {complaint}")
    assert "\n" not in str(refused.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A configuration file that was named must be there."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_client(str(tmp_path / "none.toml"), {})


def test_order_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config, then SISYPHUS_CONFIG, then ./pyproject.toml if it is the client's, then the program's own."""
    monkeypatch.chdir(tmp_path)
    named, environment, here = tmp_path / "named.toml", tmp_path / "environment.toml", tmp_path / "pyproject.toml"
    for file in (named, environment):
        file.write_text(ENABLED)
    environ = {"SISYPHUS_CONFIG": str(environment)}

    assert load_client(str(named), environ).file == named
    assert load_client(None, environ).file == environment
    assert set(load_client(None, {}).modules) >= {"ffmpeg", "cleanup"}
    here.write_text("[tool.poetry]\n")
    assert load_client(None, {}).file.absolute() != here
    here.write_text("somebody else's, and broken")
    assert load_client(None, {}).file.absolute() != here
    here.write_text(ENABLED)
    assert load_client(None, {}).file.absolute() == here


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Places to import modules from are relative to the file that names them."""
    file = tmp_path / "c.toml"
    file.write_text('[tool.client.modules]\npaths = ["mine", "../x", "/srv/y"]\n')

    assert load_client(str(file), {}).paths == (str(tmp_path / "mine"), str(tmp_path.parent / "x"), "/srv/y")


WRONG_SETTINGS = {
    "API_TIMEZONE": ["Mars/Olympus", "../etc/passwd"],
    "API_TOKEN": ["two\nlines"],
    "API_URL": ["localhost:5000", "ftp://localhost", "http://", "http://localhost:spam"],
    "CANCEL_DELETED_JOBS": ["perhaps"],
    "HEARTBEAT_INTERVAL": ["soon", "0", "-1", "nan", "inf"],
    "HOST_UUID": ["encoder:01"],
    "LOGURU_LEVEL": ["LOUD"],
    "METRICS_PORT": ["localhost:http", "65536"],
    "NETWORK_RETRY_INTERVAL": ["nan"],
    "ON_RESTART": ["perhaps"],
    "QUEUE_POLL_INTERVAL": ["0"],
    "SHUTDOWN_GRACE": ["soon", "-1"],
    "WORKER_SLOTS": ["0", "-1", "2.5", "many"],
    "WORKER_TAGS": ["gpu,\tspam"],
    "WORK_HOURS": ["22-6"],
    "WORK_HOURS_PAUSE": ["perhaps"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG_SETTINGS for value in WRONG_SETTINGS[name]]
)
def test_wrong_setting_is_refused(tmp_path: Path, name: str, value: str) -> None:
    """A setting that makes no sense is one line that names it, and shows no token."""
    with pytest.raises(ConfigError, match=f"^{name}: ") as refused:
        load_settings({name: value}, tmp_path)

    assert "\n" not in str(refused.value)
    assert name != "API_TOKEN" or value not in str(refused.value)


def test_empty_settings_count_as_absent(tmp_path: Path) -> None:
    """Settings may be present but empty; the API's address may end in a slash."""
    names = ("API_TIMEZONE", "HOSTNAME_OVERRIDE", "HOST_UUID", "HEARTBEAT_INTERVAL", "LOGURU_LEVEL")

    settings = load_settings(dict.fromkeys(names, "") | {"API_URL": "http://a:5000/"}, tmp_path)

    assert settings.api_url == "http://a:5000"
    assert (settings.api_timezone, settings.heartbeat_interval, settings.log_level) == ("UTC", 5.0, "INFO")
    assert settings.hostname


def test_host_uuid_is_made_once(tmp_path: Path) -> None:
    """A worker without HOST_UUID makes an id and keeps it, also when what was kept is damaged."""
    state = tmp_path / "a" / "state"
    first = load_settings({}, state).host_uuid

    assert str(uuid.UUID(first)) == first
    assert load_settings({}, state).host_uuid == first
    (state / "host_uuid").write_bytes(b"\xff")
    assert load_settings({}, state).host_uuid == load_settings({}, state).host_uuid != first
    assert load_settings({"HOST_UUID": "mine"}, state).host_uuid == "mine"


def test_unwritable_state_is_refused(tmp_path: Path) -> None:
    """A state directory that cannot be made is one line that says which setting to change."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="SISYPHUS_STATE_DIR"):
        load_settings({}, tmp_path / "file" / "state")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Some editors begin a file with one."""
    file = tmp_path / "client.toml"
    file.write_text(ENABLED, encoding="utf-8-sig")

    assert load_client(str(file), {}).modules
