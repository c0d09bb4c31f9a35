"""The base of all modules: the contract of the module guide, and what the client offers besides."""

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from box import Box
from loguru import logger

from app.config import Config
from app.exceptions import ValidationError
from app.heartbeat import Heartbeat, heartbeat
from modules import schema as task_schema
from modules.data import server_data


class BaseModule:
    """One task of a job.

    The client makes an instance in a process of its own and calls `validate`, `run` and `cleanup` on it. Nothing that
    happens there, a crash, a hang, a leak, reaches the client or another task.

    Attributes:
        heartbeat: Takes the status that the server is to see.
        task: The task's data.
        start_time: When `run` began, or `None` before.
        schema: JSON schema (draft 2020-12) of the task's data, or `None`; `validate` reports all that it finds wrong.
        resumed: Whether an earlier attempt at this task may have done a part of it: the client was killed meanwhile.
        cleanup_on_failure: Whether `cleanup` is also to be called after `run` failed. It then runs on this instance, or
            if its process is gone, on a fresh one that was only initialised.
    """

    heartbeat: Heartbeat = heartbeat
    task: Box
    start_time: datetime | None = None
    resumed: bool = False
    schema: ClassVar[Mapping[str, Any] | None] = None
    cleanup_on_failure: ClassVar[bool] = False

    # The client's own, named so that no module's attributes clash with them.
    sisyphus_module: str = ""
    sisyphus_warnings: tuple[str, ...] = ()
    sisyphus_files: Mapping[str, bool] = {}

    def __init__(self, task: Mapping[str, Any]) -> None:
        """Take the task's data.

        Raises:
            InitializationError: The module could not be set up.
        """
        self.task = Box(task)
        self.start_time = None

    def validate(self) -> None:
        """Check the task's data before anything of the job runs. Files of earlier tasks need not exist yet.

        Raises:
            ValidationError: What is wrong, all of it.
        """
        if self.schema is None:
            logger.info("No validation actions, skipping")
        elif problems := task_schema.problems(self.task.to_dict(), self.schema):
            raise ValidationError(message="; ".join(problems))

    def run(self) -> None:
        """Do the work.

        Raises:
            RunError: The work failed.
        """
        self.set_start_time()
        logger.info("No run actions, skipping")

    def cleanup(self) -> None:
        """Remove what `run` left over.

        Raises:
            CleanupError: Something could not be put in order.
        """

    def get_duration(self) -> timedelta:
        """The time since `run` began; nothing before that."""
        if self.start_time is None:
            return timedelta()
        return datetime.now(tz=Config.API_TIMEZONE) - self.start_time

    def set_start_time(self) -> None:
        """Note that the run begins. The client does so as well, so that forgetting it harms nothing."""
        self.start_time = datetime.now(tz=Config.API_TIMEZONE)

    def outputs(self) -> list[str]:
        """Paths of the files that `run` will write. Asked after `__init__`; later tasks may use them as sources."""
        return []

    def removes(self) -> list[str]:
        """Paths of the files that `run` will remove. Asked after `__init__`, with `outputs`."""
        return []

    def plan(self) -> list[str]:
        """What `run` would do, for `--dry-run`: command lines as one could paste them into a shell."""
        return []

    def get_data(self, name: str) -> dict[str, Any] | None:
        """What the API server keeps for this module under `name`, or `None` if there is nothing.

        The module is known there by the name under which it is enabled; outside the client, by its class's name in
        lower case. Any thread may ask.

        Raises:
            ClientError: The server does not answer, or not with a JSON object; the message says which.
        """
        return server_data.get(self.sisyphus_module or type(self).__name__.lower(), name)

    def put_data(self, name: str, object: Mapping[str, Any]) -> None:
        """Have the API server keep `object` for this module under `name`, for all clients, in the place of what it has.

        The keys `_id` and `name` are the server's own. The object may take 4 MiB as JSON.

        Raises:
            ClientError: The server did not take it, or JSON cannot hold it; the message says which.
        """
        server_data.put(self.sisyphus_module or type(self).__name__.lower(), name, object)

    def warn(self, message: str) -> None:
        """Log a warning and put it on the job's record."""
        logger.warning("{}", message)
        self.sisyphus_warnings += (message,)

    def will_exist(self, path: str) -> bool:
        """Whether `path` will be there when `run` is called: it is now, or an earlier task of the job writes it."""
        known = self.sisyphus_files.get(location(path))
        return os.path.lexists(path) if known is None else known


def location(path: str) -> str:
    """The absolute path of a directory entry: links in its directory resolved, and not the entry itself."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)
