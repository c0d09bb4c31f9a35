"""Modules of installed packages: found by their name, and loaded only where they are enabled."""

import os
from pathlib import Path

import pytest

from app.config import ConfigError, load_client
from app.installed import path_warnings
from tests.support.supervised import Supervised

SOUND = {"cool": "cool_package:Cool"}


def install(site: Path, package: str, modules: dict[str, str]) -> None:
    """Make a directory look as if pip had installed a package there."""
    information = site / f"{package}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {target}\n" for name, target in modules.items()]
    (information / "entry_points.txt").write_text("[sisyphus.modules]\n" + "".join(lines))


def enable(directory: Path, value: str = "true") -> Path:
    file = directory / "client.toml"
    file.write_text(f"[tool.client.modules.enabled]\ncool = {value}\n")
    return file


def test_enabled_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`true` means the module of that name that a package has, and nothing is imported to find it."""
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "sisyphus-cool", SOUND | {"other": "nowhere:Other"})

    assert load_client(str(enable(tmp_path)), {}).modules == {"cool": "cool_package.Cool"}


@pytest.mark.parametrize("file", ["METADATA", "entry_points.txt"])
def test_a_package_that_cannot_be_read(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason not to find the modules of others."""
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "a", {"hot": "a:Hot"})
    (tmp_path / "a-1.0.dist-info" / file).write_bytes(b"\xff\xfe[[\nno")
    install(tmp_path, "sisyphus-cool", SOUND)

    assert load_client(str(enable(tmp_path)), {}).modules == {"cool": "cool_package.Cool"}


@pytest.mark.parametrize(
    ("packages", "value", "complaint"),
    [
        ({}, "true", "cool: no installed package has a module of this name (there are: none)"),
        ({"b": {"hot": "b:H"}, "a": {"x": "a:X"}}, "true", "cool: no installed package has a module of this name "
                                                           "(there are: hot, x)"),
        ({"a": SOUND, "b": {"cool": "b:Cool"}}, "true", "cool: b 1.0 (b.Cool) and a 1.0 (cool_package.Cool) both have"),
        ({"a": {"cool": "module"}}, "true", 'cool: expected "package.module.Class", or true, got'),
        ({"a": SOUND}, "false", 'cool: expected "package.module.Class", or true, got False'),
        ({"a": SOUND}, "1", 'cool: expected "package.module.Class", or true, got 1'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: dict[str, dict[str, str]], value: str, complaint: str
) -> None:
    """The line names the key, and what there is."""
    monkeypatch.syspath_prepend(tmp_path)
    for package, modules in packages.items():
        install(tmp_path, package, modules)

    with pytest.raises(ConfigError) as raised:
        load_client(str(enable(tmp_path, value)), {})

    assert f"tool.client.modules.enabled.{complaint}" in str(raised.value)


def test_what_is_installed_is_listed(supervised: Supervised, tmp_path: Path) -> None:
    """`modules` tells of modules that could be enabled."""
    install(tmp_path / "site", "sisyphus-cool", SOUND)

    done = supervised.command("modules", env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})

    assert "Installed, and not enabled: cool = true  # sisyphus-cool 1.0, cool_package.Cool\n" in done.stdout


def test_paths_that_do_not_do_what_they_seem_to(supervised: Supervised, tmp_path: Path) -> None:
    """A file that a bundled module hides is told, and so is the root of a checkout in the place of its modules."""
    mine = tmp_path / "mine"
    (mine / "cleanup").mkdir(parents=True)
    for name in ("__init__.py", "ffmpeg.py", "tool.py", "fine.py", "cleanup/__init__.py", "cleanup/tool.py"):
        (mine / name).touch()
    root = Path(__file__).parents[2]
    supervised.configure(paths=(str(mine),))

    told = list(path_warnings([str(mine), str(root / "modules"), "/nowhere"]))
    shown = supervised.command("modules").stdout

    hidden = [f"paths: {mine}/{name} is hidden by the client's own {root}/modules/{name}: give it another name"
              for name in ("cleanup", "ffmpeg.py", "tool.py")]  # fmt: skip
    hidden[1] = hidden[1].replace("modules/ffmpeg.py", "modules/ffmpeg")
    assert told == hidden
    assert all(f"Warning of {line}\n" in shown for line in hidden)
    assert f"Warning of paths: {root} is a checkout of the client: name the directory that your modules are in" in shown
