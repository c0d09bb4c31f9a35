"""WORK_HOURS: the hours of the week in which a worker takes jobs.

They are read off the wall clock, minute by minute, and no length is ever computed: `22:00-06:00` is nine hours long
in the night in which summer time ends, and a minute that a change of the clocks leaves out belongs to nothing.
"""

import re
from datetime import datetime

DAY, WEEK = 24 * 60, 7 * 24 * 60
"""In minutes."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_RANGE = re.compile(r"(?:([a-z]{3})(?:\s*-\s*([a-z]{3}))?\s+)?(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)")

EXPECTED = "hours (such as 22:00-06:00, or Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00)"


class WorkHours:
    """The hours that a text names; those of an empty text are always.

    Ranges are separated by commas. One that ends before it begins goes on into the next day, and belongs to the day on
    which it begins.
    """

    def __init__(self, text: str) -> None:
        """Read a text.

        Raises:
            ValueError: it is wrong; the text of the error is the expected form.
        """
        self._minutes = {minute for part in text.split(",") if text for minute in _minutes(part.strip().lower())}

    def include(self, local: datetime) -> bool:
        """Return whether a time of the wall clock is in these hours."""
        minute = local.weekday() * DAY + local.hour * 60 + local.minute
        return not self._minutes or minute in self._minutes


def _minutes(part: str) -> set[int]:
    """The minutes of the week, from Monday's midnight on."""
    found = _RANGE.fullmatch(part)
    if not found or not {found[1], found[2]} <= {*_DAYS, None}:
        raise ValueError(EXPECTED)
    begin, end = int(found[3]) * 60 + int(found[4]), int(found[5]) * 60 + int(found[6])
    if begin == end or begin >= DAY or end > DAY or int(found[4]) > 59 or int(found[6]) > 59:
        raise ValueError(EXPECTED)
    first, last = (_DAYS.index(found[1]), _DAYS.index(found[2] or found[1])) if found[1] else (0, 6)
    days = range(first, last + 1 if last >= first else last + 8)
    length = end - begin if end > begin else end - begin + DAY
    return {(day * DAY + begin + minute) % WEEK for day in days for minute in range(length)}
