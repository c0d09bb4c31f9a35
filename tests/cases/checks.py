"""A job's result, and the checks of it that tables name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.media import look

Words = str | tuple[str, ...]
"""A text that must be found, in any case of letters; a tuple holds alternatives, for tools that word it differently."""


@dataclass(frozen=True)
class Result:
    """A job's record and exit status, and the names of the files that were made, changed or removed."""

    directory: Path
    status: int
    record: dict[str, Any]
    log: str
    changed: set[str] = field(default_factory=set)

    @property
    def completed(self) -> bool:
        return self.status == 0 and bool(self.record["completed"])

    @property
    def message(self) -> str:
        return str(self.record.get("message") or self.log)

    @property
    def reason(self) -> str:
        """The message without the command line, which repeats the job's own words."""
        return self.message.partition("; the command was")[0]

    @property
    def is_refused(self) -> bool:
        """True if the job ended before any task ran."""
        return self.status == 2 or self.record.get("error", {}).get("step") in ("init", "validate")

    @property
    def warnings(self) -> str:
        return "\n".join(text for task in self.record.get("tasks", []) for text in task.get("warnings", []))

    def __str__(self) -> str:
        words = self.record.get("error", {}).get("type", "status 2" if self.status == 2 else "completed")
        return f"{words}: {self.message if not self.completed else self.warnings!r}; changed {sorted(self.changed)}"


Check = Callable[[Result], None]


def require_words(text: str, words: Sequence[Words]) -> None:
    for each in words:
        alternatives = (each,) if isinstance(each, str) else each
        assert any(word.lower() in text.lower() for word in alternatives), f"{each!r} is not in {text!r}"


def stopped(*words: Words, changed: Sequence[str] = ()) -> Check:
    """Expect that the job did not complete, that its message has the words, and that only these files changed."""

    def check(result: Result) -> None:
        assert not result.completed, str(result)
        require_words(result.reason, words)
        assert result.changed == set(changed), str(result)

    return check


def refused(*words: Words) -> Check:
    """Expect `stopped` before any task ran."""

    def check(result: Result) -> None:
        stopped(*words)(result)
        assert result.is_refused, str(result)

    return check


def completes(
    *warnings: Words, changed: Sequence[str] = ("out.mkv",), holds: Mapping[str, Sequence[str]] = {}
) -> Check:
    """Expect that the job completed with these warnings and changed these files, and no others.

    `holds` has words for each stream of a file, in their order; see `streams`.
    """

    def check(result: Result) -> None:
        assert result.completed, str(result)
        require_words(result.warnings, warnings)
        assert result.changed == set(changed), str(result)
        for name, expected in holds.items():
            found = streams(result.directory / name)
            assert len(found) == len(expected), found
            assert all(set(words.split()) <= each for words, each in zip(expected, found, strict=True)), found

    return check


def told(*words: Words, changed: Sequence[str] | None = None) -> Check:
    """Expect the words in the message of a job that failed and changed nothing, or in the warnings of a completed one.

    One tool or version gives up where another survives: the user must learn of the damage either way.
    """

    def check(result: Result) -> None:
        require_words(result.warnings if result.completed else result.reason, words)
        if not result.completed or changed is not None:
            assert result.changed == set(changed or ()), str(result)

    return check


def streams(path: Path) -> list[set[str]]:
    """Each stream of a file in words: type, codec, size, language, title."""
    words = []
    for each in look(path)["streams"]:
        tags = {key.lower(): value for key, value in each.get("tags", {}).items()}
        size = f"{each['width']}x{each['height']}" if "width" in each else ""
        texts = (each["codec_type"], each.get("codec_name", "?"), size, tags.get("language", ""))
        words.append({*texts, *tags.get("title", "").split()})
    return words


def tags_of(path: Path) -> dict[str, str]:
    """The tags of a file."""
    return {key.lower(): value for key, value in look(path)["format"].get("tags", {}).items()}
