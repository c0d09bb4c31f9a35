"""The common part of the bundled modules: what they write stands under temporary names until it is whole."""

import os
from collections.abc import Mapping
from typing import Any

from loguru import logger

from app.exceptions import CleanupError
from modules.base import BaseModule
from modules.output import Output


class WritingModule(BaseModule):
    """A module that writes files, and whose failed or killed runs leave no part of them."""

    cleanup_on_failure = True

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self.report()
        logger.debug("Data: {}", self.task)

    def cleanup(self) -> None:
        """Remove the temporary files that a killed process of this job may have left."""
        for output in self._possible_outputs():
            try:
                output.discard()
            except OSError as error:
                raise CleanupError(message=f"temporary file of {output.target}: {error.strerror}") from error

    def _possible_outputs(self) -> list[Output]:
        """All files that `run` may write, whatever the sources contain."""
        return [self.output(name) for name in self.outputs()]

    def output(self, name: str) -> Output:
        """A file that replaces what is there."""
        return Output(name, overwrite=True, warn=self.warn)

    def warn_of_loss(self, target: str) -> None:
        if os.path.lexists(target):
            self.warn(f"{target} was there already: it is replaced")
