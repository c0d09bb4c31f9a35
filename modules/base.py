"""The base of all modules: the contract of the module guide, and what the client offers besides."""

import math
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar

from box import Box
from loguru import logger

from app.config import Config
from app.exceptions import ValidationError
from app.heartbeat import Heartbeat, heartbeat
from modules import context, tool
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
        schema: JSON schema (draft 2020-12) of the task's data; `validate` reports all that it finds wrong. A class
            without one has that of `NAME.schema.json` beside its file `NAME.py`, if there is one, or `None`.
        tools: Names of the programs that `run` needs, the one that does the work first; `validate` reports which of
            them are not installed, and `sisyphus-client modules` shows them.
        cleanup_on_failure: Whether `cleanup` is also to be called after `run` failed. It then runs on this instance, or
            if its process is gone, on a fresh one that was only initialised.
    """

    heartbeat: Heartbeat = heartbeat
    task: Box
    start_time: datetime | None = None
    schema: ClassVar[Mapping[str, Any] | None] = None
    tools: ClassVar[tuple[str, ...]] = ()
    cleanup_on_failure: ClassVar[bool] = False

    @cached_property  # made at the first use, because a module need not call our __init__
    def sisyphus_context(self) -> context.TaskContext:
        """What the client knows of the task. The client's own: the name clashes with no module's attribute."""
        return context.copy_current()

    @cached_property  # and no property: a module may have an attribute of that name, and a test may set it
    def resumed(self) -> bool:
        """An earlier attempt at this task was interrupted, because the client was killed, and may have done a part."""
        return self.sisyphus_context.resumed

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.schema is None:
            cls.schema = task_schema.beside(cls.__module__)

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
        if self.schema is None and not type(self).tools:
            logger.info("No validation actions, skipping")
        found = [] if self.schema is None else task_schema.problems(self.task.to_dict(), self.schema)
        found += [problem for name in type(self).tools if (problem := tool.missing(name))]
        is_sound = not found
        try:
            found.extend(self.find_problems())  # what it has told before it raises stays
        except Exception as error:
            if is_sound:
                raise
            logger.debug("The other checks take sound data and all tools: {!r}", error)
        if found:
            raise ValidationError(problems=list(dict.fromkeys(found)))

    def find_problems(self) -> Iterable[str]:
        """What is wrong with the task's data besides what `schema` and `tools` tell, a line each, for `validate`.

        It is asked even if those have found something, so that a person is told everything at once. What it raises
        does not count then: it may take the data for sound.
        """
        return ()

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

    @classmethod
    def probe_encoders(cls) -> Iterable[tuple[str, str]]:
        """Try the tool's encoders, for `modules --probe`: each one's name, and why it does not work, or nothing."""
        return ()

    def report(
        self, progress: float | None = None, info: Mapping[str, Any] | None = None, *, done: bool = False
    ) -> None:
        """Tell the heartbeat how the work is going; what is not given stays as it was.

        Args:
            progress: Percent. It never goes back within a phase, and stays below 100 until the work is done.
            info: Its key `phase` names what is being done; a value that is `None` or no finite number is left out.
            done: The work is done: 100 percent.
        """
        was = self.sisyphus_context.status
        status = {"status": "in_progress", "task": _name_of(self), **was}
        if known := {key: value for key, value in (info or {}).items() if _can_be_told(value)}:
            status["info"] = known
        if done:
            status["progress"] = 100.0
        elif progress is not None and _can_be_told(progress):
            same_phase = was.get("info", {}).get("phase") == status.get("info", {}).get("phase")
            least = was.get("progress", 0.0) if same_phase else 0.0
            status["progress"] = max(least, round(min(progress, 99.9), 2))
        self.sisyphus_context.status = status
        self.heartbeat.set_data(status)

    def get_data(self, name: str) -> dict[str, Any] | None:
        """What the API server keeps for this module under `name`, or `None` if there is nothing.

        The module is known there by the name under which it is enabled; outside the client, by its class's name in
        lower case. Any thread may ask.

        Raises:
            ClientError: The server does not answer, or not with a JSON object; the message says which.
        """
        return server_data.get(_name_of(self), name)

    def put_data(self, name: str, object: Mapping[str, Any]) -> None:
        """Have the API server keep `object` for this module under `name`, for all clients, in the place of what it has.

        The keys `_id` and `name` are the server's own. The object may take 4 MiB as JSON.

        Raises:
            ClientError: The server did not take it, or JSON cannot hold it; the message says which.
        """
        server_data.put(_name_of(self), name, object)

    def warn(self, message: str) -> None:
        """Log a warning and put it on the job's record."""
        logger.warning("{}", message)
        self.sisyphus_context.warnings += (message,)

    def will_exist(self, path: str) -> bool:
        """Whether `path` will be there when `run` is called: it is now, or an earlier task of the job writes it."""
        known = self.sisyphus_context.files.get(location(path))
        return os.path.lexists(path) if known is None else known


def _name_of(module: BaseModule) -> str:
    return module.sisyphus_context.module or type(module).__name__.lower()


def location(path: str) -> str:
    """The absolute path of a directory entry: links in its directory resolved, and not the entry itself."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)


def _can_be_told(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
