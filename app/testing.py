"""A pytest plugin for authors of modules: its fixture `sisyphus` runs a module as a job of the client's does.

A test file asks for it with `pytest_plugins = ["app.testing"]`. Each run is a client of its own, with a configuration,
a state directory and a process for each task, so a test meets what a job meets: checks, limits, cleanup, the record.

PYTEST_DONT_REWRITE: a test file may import this before pytest sees that it is a plugin.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from app.formats import toml

CLIENT = str(Path(sys.executable).with_name("sisyphus-client"))


class ModuleTester:
    """Runs modules.

    Attributes:
        directory: The working directory of the tasks, empty at first. Relative paths in a task's data start there.
    """

    def __init__(self, directory: Path, private: Path) -> None:
        self.directory = directory
        self._private = private
        self._paths: list[str] = []
        self._tables: dict[str, dict[str, Any]] = {"enabled": {}, "settings": {}, "limits": {}}

    def enable(
        self,
        name: str,
        target: str | Literal[True],
        *,
        paths: Iterable[str | Path] = (),
        settings: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> None:
        """Enable a module, as the configuration file would.

        Args:
            name: The name that tasks use.
            target: `package.module.Class`, or true for the one that an installed package has under this name.
            paths: Directories to import it from.
            settings: Its `[tool.client.modules.settings.NAME]`.
            limits: Its `[tool.client.limits.NAME]`.
        """
        self._paths += [os.path.abspath(path) for path in paths]
        for table, value in (("enabled", target), ("settings", settings), ("limits", limits)):
            if value:
                self._tables[table][name] = value

    def run(self, *tasks: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Run a job of tasks, each a module's name and its data; returns the job's record.

        The client's log is written to standard error, which pytest shows for a test that fails.
        """
        config, job = self._private / "client.toml", self._private / "job.json"
        config.write_text(self._configuration(), encoding="utf-8")
        job.write_text(json.dumps({"tasks": [{"module": module, "data": data} for module, data in tasks]}))
        environment = {**os.environ, "SISYPHUS_STATE_DIR": str(self._private / "state")}
        command = [CLIENT, "run", "--json", "--config", str(config), str(job)]
        done = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        sys.stderr.write(done.stderr)
        assert done.returncode in (0, 1), done.stderr
        record: dict[str, Any] = json.loads(done.stdout)
        return record

    def make_clip(
        self,
        name: str = "clip.mkv",
        *,
        seconds: float = 1.0,
        video: str = "testsrc2=size=320x240:rate=24",
        audio: str = "sine=frequency=440",
        options: Sequence[str] = (),
    ) -> Path:
        """Make a short film in `directory` with ffmpeg.

        `video` and `audio` are filters of ffmpeg that make picture and sound; an empty one leaves that out. `options`
        are those of ffmpeg for the output, such as `["-c:v", "libx265"]`.
        """
        path = self.directory / name
        inputs = [part for each in (video, audio) if each for part in ("-f", "lavfi", "-i", each)]
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *inputs, "-t", str(seconds), *options, f"file:{path}"]
        subprocess.run(command, check=True)
        return path

    def _configuration(self) -> str:
        lines = ["[tool.client.modules]", f"paths = {toml(self._paths)}"]
        for table, title in (("enabled", "modules.enabled"), ("settings", "modules.settings"), ("limits", "limits")):
            lines += [f"[tool.client.{title}]", *(f"{key} = {toml(item)}" for key, item in self._tables[table].items())]
        return "\n".join(lines) + "\n"


@pytest.fixture
def sisyphus(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ModuleTester:
    """Runs modules in `tmp_path` as the client does."""
    return ModuleTester(tmp_path, tmp_path_factory.mktemp("sisyphus"))
