"""What the base class does for every module."""

import contextlib
from typing import Any

import pytest

from modules.base import BaseModule


class Told(BaseModule):
    """Keeps its reports as (phase, progress)."""

    def __init__(self) -> None:
        super().__init__({})
        self.told: list[Any] = []

    def report(self, *arguments: Any, **options: Any) -> None:
        super().report(*arguments, **options)
        status = self.sisyphus_context.status
        self.told.append((status.get("info", {}).get("phase"), status.get("progress")))


def test_phases() -> None:
    """Progress within a phase is a share of the whole task's, and never goes back."""
    module = Told()

    with module.phase("pass 1", weight=25):
        module.report(50)
        module.report(40, {"fps": 3})
    with module.phase("pass 2", weight=75):
        module.report(info={"fps": 4})
        for progress in (float("nan"), -5, 50, 400):
            module.report(progress)
    module.report(info={"phase": "checking"})
    module.report(done=True)

    assert module.told == [
        *[("pass 1", progress) for progress in (0, 12.5, 12.5, 25)],
        *[("pass 2", progress) for progress in (25, 25, 25, 25, 62.5, 99.9, 99.9)],
        ("checking", 99.9),
        ("checking", 100),
    ]


def test_phases_in_a_phase() -> None:
    """They share out their phase, and after them it goes on where they ended."""
    module = Told()

    with module.phase("encode", weight=50):
        with module.phase("pass 1", weight=50):
            module.report(50)
        with module.phase("pass 2", weight=50):
            module.report(50)
        module.report(10)
    with module.phase("check", weight=50):
        pass

    progress = [each for _, each in module.told]
    assert [*dict.fromkeys(progress)] == [0, 12.5, 25, 37.5, 50, 99.9]
    assert progress == sorted(progress)


@pytest.mark.parametrize("weight", [-1, 101, float("nan"), float("inf")])
def test_a_weight_that_is_none(weight: float) -> None:
    """It is an error where it is given: no report could carry what it comes to."""
    with pytest.raises(ValueError, match=r"'pass 1' has the weight"), Told().phase("pass 1", weight=weight):
        pass


def test_a_phase_that_fails() -> None:
    """Its progress stays where it was."""
    module = Told()

    with contextlib.suppress(ZeroDivisionError), module.phase("pass 1", weight=50):
        module.report(10)
        raise ZeroDivisionError
    module.report()

    assert module.told[-1] == ("pass 1", 5)


def test_an_authors_own_attributes() -> None:
    """A module may have attributes of the names that this client has added to the guide's."""

    class Older(BaseModule):
        phase = "mine"  # type: ignore[assignment]

        def __init__(self, task: dict[str, Any]) -> None:
            super().__init__(task)
            self.results, self.job, self.settings = [], "job", {}  # type: ignore[assignment]

    module = Older({})
    module.report(5)

    assert (module.results, module.job, module.settings, module.phase) == ([], "job", {}, "mine")
