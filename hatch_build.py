"""A build hook: puts the manual page, which the program makes from its commands, into the wheel."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPageHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # a checkout, whose program writes the page itself
            return
        page = Path(tempfile.mkdtemp()) / "sisyphus-client.1"
        command = [sys.executable, "-m", "sisyphus_client", "man"]
        page.write_bytes(subprocess.run(command, cwd=self.root, stdout=subprocess.PIPE, check=True).stdout)
        build_data["shared_data"][str(page)] = "share/man/man1/sisyphus-client.1"
        self._page = page

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        del build_data, artifact_path
        if version != "editable":
            self._page.unlink()
            self._page.parent.rmdir()
