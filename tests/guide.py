"""The snippets of the module guide, each as a module that works as it stands there."""

import contextlib
import multiprocessing
import time
from datetime import datetime, timedelta
from pathlib import Path

import requests
from box import Box
from loguru import logger

import app.heartbeat
from app.config import Config
from app.exceptions import CleanupError, InitializationError, RunError, ValidationError
from modules.base import BaseModule


class MyCustomModule(BaseModule):
    """Status and task, progress, information."""

    def __init__(self, task):
        super().__init__(task)
        logger.info("Module loaded successfully.")
        logger.debug(f"Data: {self.task}")
        self.status = Box({"status": "in_progress", "task": "mycustommodule"})
        self.heartbeat.set_data(self.status)

    def run(self) -> None:
        self.set_start_time()
        self.status.progress = 43
        self.heartbeat.set_data(self.status)
        self.status.info = {"current_frame": 197, "total_frames": 24067}
        self.heartbeat.set_data(self.status)
        logger.info("Module run successfully.")


class FailsToInitialize(BaseModule):
    def __init__(self, task):
        super().__init__(task)
        # Something bad happened, so let's tell the world about it.
        raise InitializationError(message="Could not build additional pylons.")


class FailsToValidate(BaseModule):
    def validate(self) -> None:
        # Something bad happened, so let's tell the world about it.
        raise ValidationError(message="Your data is bad and you should feel bad.")


class CoolCustomModule(BaseModule):
    def run(self) -> None:
        self.set_start_time()
        # insert run code here
        assert isinstance(self.start_time, datetime)
        assert self.start_time.tzinfo is Config.API_TIMEZONE
        assert isinstance(self.get_duration(), timedelta)
        assert self.heartbeat is app.heartbeat.heartbeat


class ForgetsTheStartTime(BaseModule):
    def run(self) -> None:
        self.status = Box({"status": "in_progress", "task": "forgets", "info": {"for": str(self.get_duration())}})
        self.heartbeat.set_data(self.status)


class FailsToRun(BaseModule):
    def run(self) -> None:
        # Another something bad happened.
        raise RunError(message="Something bad happened, but on a side-note: let me tell you about my poetry...")


class FailsToCleanUp(BaseModule):
    def cleanup(self) -> None:
        # This exception hurts the most, especially after a 2 hour
        # `ffmpeg` run
        raise CleanupError(message="Couldn't delete a temporary file and now it's your problem.")


class UsesServerSideData(BaseModule):
    def run(self) -> None:
        # To get the data
        task_module = "ffmpeg"
        data_name = "x265-veryfast"

        # The GET request equivalent URL:
        # http://address.to.api.server:5000/data/ffmpeg/x265-veryfast
        answer = requests.get(f"{Config.API_URL}/data/{task_module}/{data_name}", timeout=10)
        Path(self.task.out).write_text(answer.text)

        # To push data to the server:
        data_to_send = {"options": {"codec": "libx265", "crf": 19, "preset": "veryfast"}}
        # As JSON: the server refuses the form that the guide's `data=` sends.
        requests.post(f"{Config.API_URL}/data/{task_module}/{data_name}", json=data_to_send, timeout=10)


class UsesOldHeartbeatNames(BaseModule):
    """The attributes of the heartbeat that modules of the field use."""

    def run(self) -> None:
        beat = app.heartbeat.heartbeat
        assert beat.job_id
        assert beat.job_title
        assert beat.interval > 0
        assert beat.start_time.tzinfo is Config.API_TIMEZONE
        assert beat.message["hostname"] == Config.HOSTNAME
        beat.set_in_progress()
        assert beat.message["status"] == "in_progress"
        beat.set_in_progress(beat.job_id, beat.job_title)
        beat.set_idle()
        assert beat.message["status"] == "idle"
        beat.set_startup()
        assert beat.message["status"] == "startup"
        assert (Config.QUEUE_POLL_INTERVAL, Config.NETWORK_RETRY_INTERVAL) == (10, 20)
        with contextlib.suppress(app.exceptions.Error):
            raise app.exceptions.NetworkError(message="the field's names")


class NotDerived:
    """A module need not even derive from the base, only have the methods."""

    def __init__(self, task):
        self.task = task

    def validate(self):
        pass

    def run(self):
        pass

    def cleanup(self):
        pass


class ManyHeartbeats(BaseModule):
    """Large statuses, the last of them on its way when the step ends."""

    def run(self) -> None:
        for _ in range(2):
            self.heartbeat.set_data({"status": "in_progress", "task": "cool", "info": {"x": "y" * 480_000}})
        time.sleep(0.249)


class NamesOfItsOwn(BaseModule):
    """Attributes that a careless client would trample on."""

    def __init__(self, task):
        super().__init__(task)
        self._files = ["a", "b"]
        self._warnings = ["secret"]
        self.tools = {"hammer": 1}
        self.report = "ready"
        self.resumed = "never"
        self._name = "mine"

    def run(self) -> None:
        super().report(50)
        assert self._files[0] == "a"
        assert self._warnings == ["secret"]
        assert self.resumed == "never"


class ForksWorkers(BaseModule):
    """A pool of forked processes, which the pool ends with SIGTERM."""

    def run(self) -> None:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]


class WarnsWithoutItsBase(BaseModule):
    """Forgets its base's __init__."""

    def __init__(self, task):
        self.warn("odd")


class CodeError(RunError):
    def __init__(self, code):
        self.code = code

    def __str__(self):
        return str(self.code)


class RaisesItsOwnClass(BaseModule):
    def run(self) -> None:
        raise CodeError(41)
