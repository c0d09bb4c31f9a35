"""The base class of modules: the contract of the module guide, and helpers beyond it."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar

from box import Box
from loguru import logger

from app.config import Config
from app.exceptions import ClientError, ValidationError
from app.heartbeat import Heartbeat, heartbeat
from ipc.messages import MAX_STATE, Save
from modules import context, tool
from modules import schema as task_schema
from modules.data import server_data


class BaseModule:
    """One task of a job.

    The client makes an instance in a process of its own and calls `validate`, `run` and `cleanup` on it. A crash, a
    hang or a leak there affects neither the client nor another task.

    Attributes:
        heartbeat: Sends the module's status to the server.
        task: The task's data, a `Box`.
        start_time: When `run` began, or `None` before.
        schema: JSON schema (draft 2020-12) of the task's data, by which `validate` checks it. If a class has none, that
            of `NAME.schema.json` beside its file `NAME.py` is used, or `None` if there is no such file.
        tools: Names of the programs that `run` needs, the one that does the work first. `validate` reports those that
            are not installed, and `sisyphus-client modules` shows all of them.
        cleanup_on_failure: True if `cleanup` is also to be called after `run` failed: on this instance or, if its
            process is gone, on a fresh one that was only initialised.
    """

    heartbeat: Heartbeat = heartbeat
    task: Any  # a Box, whose own stubs leave `get` without types: `mypy --strict` would refuse an author's call
    start_time: datetime | None = None
    schema: ClassVar[Mapping[str, Any] | None] = None
    tools: ClassVar[tuple[str, ...]] = ()
    cleanup_on_failure: ClassVar[bool] = False

    @cached_property  # made at the first use, because a module need not call our __init__
    def sisyphus_context(self) -> context.TaskContext:
        """The client's own record of the task, under a name that no module's attribute has."""
        return context.copy_current()

    @cached_property  # and no property: a module may have an attribute of that name, and a test may set it
    def resumed(self) -> bool:
        """An earlier attempt at this task was interrupted, because the client was killed, and may have done a part."""
        return self.sisyphus_context.resumed

    @cached_property  # a module may have attributes of these names, too
    def results(self) -> context.Results:
        """Results for the job's record and for later tasks, such as `self.results["ssim"] = 0.98`.

        They are JSON: 8 KiB in all, names of letters, digits, spaces, - and _. They are kept at the end of each step,
        also of one that fails, but not if the task process crashes.
        """
        return self.sisyphus_context.results

    @cached_property
    def settings(self) -> Any:  # a Box, too
        """The operator's settings for this module: `[tool.client.modules.settings.NAME]`."""
        return Box(self.sisyphus_context.settings)

    @cached_property
    def job(self) -> context.CurrentJob:
        """The job of this task: its `id`, its `title` and, in `run`, what the `tasks` before this one came to."""
        return self.sisyphus_context.job

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.schema is None:
            cls.schema = task_schema.beside(cls.__module__)

    def __init__(self, task: Mapping[str, Any]) -> None:
        """Store the task's data as `task`.

        Raises:
            InitializationError: The module cannot be set up.
        """
        self.task = Box(task)
        self.start_time = None

    def validate(self) -> None:
        """Check the task's data before anything of the job runs. Files of earlier tasks need not exist yet.

        Raises:
            ValidationError: The data is wrong; the error lists every problem.
        """
        if self.schema is None and not type(self).tools:
            logger.info("No validation actions, skipping")
        found = [] if self.schema is None else task_schema.problems(self.task.to_dict(), self.schema)
        found += [problem for name in listed(type(self).tools) if (problem := tool.missing(name))]
        is_sound = not found
        try:
            found.extend(listed(self.find_problems()))  # keeps the problems that it finds before it raises
        except Exception as error:
            if is_sound:
                raise
            logger.debug("A check failed, because the data is wrong or a tool is missing: {!r}", error)
        if found:
            raise ValidationError(problems=list(dict.fromkeys(found)))

    def find_problems(self) -> Iterable[str]:
        """Yield a line for each problem of the task's data that `schema` and `tools` do not find. For `validate`.

        It is called even if those have found problems, so that a person sees all of them at once. It may rely on sound
        data and installed tools all the same: an exception is then ignored.
        """
        return ()

    def run(self) -> None:
        """Do the work.

        Raises:
            RunError: The work failed; the message says why.
        """
        self.set_start_time()
        logger.info("No run actions, skipping")

    def cleanup(self) -> None:
        """Remove what `run` left over.

        Raises:
            CleanupError: Something cannot be removed.
        """

    def get_duration(self) -> timedelta:
        """The time since `run` began, zero before."""
        if self.start_time is None:
            return timedelta()
        return datetime.now(tz=Config.API_TIMEZONE) - self.start_time

    def set_start_time(self) -> None:
        """Store the time at which `run` begins. The client calls this before `run`, so a module need not."""
        self.start_time = datetime.now(tz=Config.API_TIMEZONE)

    def outputs(self) -> list[str]:
        """Paths of the files that `run` will write. Called after `__init__`; later tasks may use them as sources."""
        return []

    def inputs(self) -> list[str]:
        """Paths of the files that `run` will read. Called after `__init__`; the record tells how large they are."""
        return []

    def removes(self) -> list[str]:
        """Paths of the files that `run` will remove. Called after `__init__`, with `outputs`."""
        return []

    def plan(self) -> list[str]:
        """Command lines for a shell that do the same as `run`. Shown by `--dry-run`."""
        return []

    @classmethod
    def ask_tools(cls) -> None:
        """Ask the tools what `modules.installed` keeps for all tasks. Called for bundled modules, before a task's data
        is read.

        Raises:
            ClientError: A tool does not answer.
        """

    @classmethod
    def probe_encoders(cls) -> Iterable[tuple[str, str]]:
        """Try the tool's encoders. Yields the name of each, and why it does not work, or ''. For `modules --probe`."""
        return ()

    def report(
        self, progress: float | None = None, info: Mapping[str, Any] | None = None, *, done: bool = False
    ) -> None:
        """Send the progress of the work to the server. An argument that is not given keeps its last value.

        Args:
            progress: Percent of the task or, in a `with self.phase(…)`, of that phase. It never goes back within a
                phase, and stays below 100 until the work is done.
            info: Its key `phase` names the current part of the work. Values that are `None`, infinite or NaN are
                left out.
            done: True when the work is done: 100 percent.
        """
        was, phase = self.sisyphus_context.status, self.sisyphus_context.phase
        status = {"status": "in_progress", "task": _name_of(self), **was}
        if phase and (info is not None or was.get("info", {}).get("phase") != phase[0]):
            info = {"phase": phase[0], **(info or {})}
        if known := {key: value for key, value in (info or {}).items() if _is_reportable(value)}:
            status["info"] = known
        if done:
            status["progress"] = 100.0
        elif progress is not None and _is_reportable(progress):
            if phase:
                progress = phase[1] + (phase[2] - phase[1]) * min(progress, 100.0) / 100
            same_phase = phase or was.get("info", {}).get("phase") == status.get("info", {}).get("phase")
            least = was.get("progress", 0.0) if same_phase else 0.0
            status["progress"] = max(least, round(min(progress, 99.9), 2))
        self.sisyphus_context.status = status
        self.heartbeat.set_data(status)

    @contextlib.contextmanager
    def phase(self, name: str, weight: float) -> Iterator[None]:
        """A part of the work, for which `report` then takes progress from 0 to 100.

        Args:
            name: For people, such as `pass 1`.
            weight: Its percent of the whole task, or of the phase that it is in. The phases follow each other, and make
                100 together.

        Raises:
            ValueError: The weight is no percentage.
        """
        if not 0 <= weight <= 100:
            raise ValueError(f"the phase {name!r} has the weight {weight}: expected a number from 0 to 100")
        known = self.sisyphus_context
        outer, begin = known.phase, known.phased
        _, start, limit = outer or ("", 0.0, 100.0)
        end = min(begin + (limit - start) * weight / 100, limit)
        known.phase = (name, begin, end)
        try:
            self.report(0)
            yield
            self.report(100)
        finally:
            known.phase, known.phased = outer, end

    def get_data(self, name: str) -> dict[str, Any] | None:
        """Fetch the object that the API server keeps for this module under `name`; `None` if there is none.

        The module's name there is the one under which it is enabled or, outside the client, its class's name in lower
        case. Any thread may call this.

        Raises:
            ClientError: The server does not answer, or not with a JSON object; the message says which.
        """
        return server_data.get(_name_of(self), name)

    def put_data(self, name: str, object: Mapping[str, Any]) -> None:
        """Store `object` on the API server for this module under `name`, in the place of an older one.

        All clients share it. It may take 4 MiB as JSON, and must not have the keys `_id` and `name`, which the server
        adds itself.

        Raises:
            ClientError: The server refuses the object, or JSON cannot hold it; the message says which.
        """
        server_data.put(_name_of(self), name, object)

    def load_state(self) -> Any:
        """Return the value that `save_state` got last, in this attempt or an earlier one; `None` at first."""
        return self.sisyphus_context.saved_state

    def save_state(self, state: Any) -> None:
        """Keep `state` for another attempt at the task. It survives a crash of the client once this returns.

        It may take 64 KiB as JSON. Each call replaces the state before it.

        Raises:
            ClientError: JSON cannot hold the state, it is too large, or there is no step under way.
        """
        try:
            text = json.dumps(state, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ClientError(message=f"a state can be only what JSON can hold: {error}") from error
        if len(text) > MAX_STATE:
            raise ClientError(message=f"a state can have {MAX_STATE} characters of JSON, not {len(text)}")
        if exchange := self.sisyphus_context.exchange:
            answer = exchange(Save(text))
            if answer.status == 0:
                raise ClientError(message=f"the state is not saved: {answer.error}")
        self.sisyphus_context.saved_state = json.loads(text)

    def warn(self, message: str) -> None:
        """Log a warning and put it on the job's record."""
        logger.warning("{}", message)
        self.sisyphus_context.warnings += (message,)

    def will_exist(self, path: str) -> bool:
        """True if `path` will exist when `run` is called: it does now, or an earlier task of the job writes it."""
        known = self.sisyphus_context.files.get(location(path))
        return os.path.lexists(path) if known is None else known


def _name_of(module: BaseModule) -> str:
    return module.sisyphus_context.module or type(module).__name__.lower()


def listed(value: Iterable[str]) -> Iterable[str]:
    """A text in the place of a list stands for itself: `("ffmpeg")` is no tuple, and each letter would count."""
    return (value,) if isinstance(value, str) else value


def location(path: str) -> str:
    """The absolute path of a directory entry. Links in its directory are resolved; the entry itself may be a link."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)


def _is_reportable(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
