"""The module of a rehearsal: it does nothing, as often as the zygote likes."""

from modules.base import BaseModule


class Rehearsal(BaseModule):
    """Has all that a module has."""

    def validate(self) -> None:
        """Accept any data."""

    def run(self) -> None:
        """Do nothing."""
