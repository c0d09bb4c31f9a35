"""WORK_HOURS: which minutes of the week a text names."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.hours import WorkHours

MONDAY = datetime(2026, 3, 23)
LATE = "Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00"


@pytest.mark.parametrize(
    ("text", "within", "outside"),
    [
        ("", ["Mon 00:00", "Sun 23:59"], []),
        ("22:00-06:00", ["Mon 22:00", "Tue 05:59", "Mon 00:00", "Sun 23:59"], ["Mon 21:59", "Tue 06:00"]),
        ("09:30 - 12:00, 13:00-24:00", ["Wed 09:30", "Wed 11:59", "Wed 23:59"], ["Wed 12:00", "Thu 00:00"]),
        (LATE, ["Fri 22:00", "Sat 12:00", "Sun 23:59", "Tue 05:59"], ["Mon 00:00", "Fri 21:59", "Mon 21:59"]),
        ("sun 22:00-06:00", ["Sun 22:00", "Mon 05:59"], ["Mon 22:00", "Sun 05:59", "Mon 06:00"]),
        ("Fri-Mon 08:00-09:00", ["Fri 08:00", "Sun 08:59", "Mon 08:30"], ["Tue 08:30", "Thu 08:30", "Mon 09:00"]),
        ("00:00-24:00", ["Mon 00:00", "Sun 23:59"], []),
    ],
)
def test_ranges(text: str, within: list[str], outside: list[str]) -> None:
    """Ranges are for the days that they name, and those over midnight for the day on which they begin."""
    hours = WorkHours(text)
    week = {f"{day:%a %H:%M}": day for day in (MONDAY + timedelta(minutes=minute) for minute in range(7 * 24 * 60))}

    assert [moment for moment in within + outside if hours.include(week[moment])] == within


@pytest.mark.parametrize(("month", "day", "length"), [(3, 28, 7), (10, 24, 9), (6, 20, 8)])
def test_the_clock_on_the_wall_counts(month: int, day: int, length: int) -> None:
    """A night in which summer time begins is an hour shorter, and one in which it ends an hour longer."""
    hours, noon = WorkHours("22:00-06:00"), datetime(2026, month, day, 12, tzinfo=UTC)
    minutes = (noon + timedelta(minutes=minute) for minute in range(24 * 60))

    assert sum(hours.include(minute.astimezone(ZoneInfo("Europe/Berlin"))) for minute in minutes) == length * 60


@pytest.mark.parametrize(
    "text",
    [
        *("22-6", "25:00-06:00", "22:00-22:00", "22:60-23:00", "24:00-06:00", "06:00-24:01", "always"),
        *("22:00-06:00,", "Mo 22:00-06:00", "Mon-Xyz 01:00-02:00", "Mon22:00-23:00", "Mon 22:00-06:00 Sat"),
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    """What names no hours is an error that shows how it is written."""
    with pytest.raises(ValueError, match=r"^hours \(such as 22:00-06:00"):
        WorkHours(text)
