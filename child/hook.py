"""The operator's command that follows a job's verdict, as a task of its own: so it has a task's limits and its end."""

import json
import subprocess
from typing import Any, ClassVar

from app.exceptions import RunError
from modules.base import BaseModule
from modules.tool import Finished


class Hook(BaseModule):
    """Runs `command`, an argument list, with `document` as JSON on its standard input. What it prints is logged."""

    schema: ClassVar[dict[str, Any]] = {"type": "object"}

    def run(self) -> None:
        argv = [str(argument) for argument in self.task.command]
        document = json.dumps(self.task.to_dict()["document"]).encode()
        try:
            done = subprocess.run(argv, input=document, check=False)
        except OSError as error:
            raise RunError(message=f"{argv[0]} cannot be started: {error.strerror}") from error
        Finished(tuple(argv), done.returncode).check()
