"""Values of options that HandBrakeCLI 1.6.1 does not check: it takes its default, or 0, for any that it cannot read."""

import re
from collections.abc import Iterator, Sequence

from ipc.words import suggestion

_NUMBER = r"\s*-?\d+(\.\d*)?\s*"

_FORMS = {
    "crop": (r"\d+:\d+:\d+:\d+", "top:bottom:left:right in pixels"),
    "min_duration": (_NUMBER, "a number of seconds"),
    "pixel_aspect": (r"\d+:\d+", "two numbers, as 16:15"),
    "previews": (r"\d+(:[01])?", "a number of pictures, and 0 or 1, as 10:0"),
    "start_at": (r"(seconds|duration|frames|pts):\d+(\.\d+)?", "a unit and a number, as seconds:10"),
}
_NOT_ZERO = r":(?!0+(\.0*)?$)"
_FORMS["stop_at"] = (_FORMS["start_at"][0].replace(":", _NOT_ZERO), "a unit and a number above 0, as seconds:10")
_ITEMS = {
    "normalize_mix": (r"[01]", "0 or 1"),
    "drc": (r"\s*(0(\.0*)?|[1-3](\.\d*)?|4(\.0*)?)?\s*", "0, or a number from 1 to 4"),
} | dict.fromkeys(("srt_offset", "ssa_offset"), (_NUMBER, "a number"))
"""The form of a value, or of each item of a list, as the help describes it, and words for it."""

_WORDS = {"audio": ("none",), "subtitle": ("scan", "none")}
"""Words allowed among the numbers of tracks. HandBrakeCLI 1.6.1 silently leaves out any other."""

_LISTED = ("adither", "color_matrix", "crop_mode", "enable_hw_decoding")
"""Options that take their default for a value that the help does not list."""

_HIGHEST = {"x264": 51, "x265": 51, "svt_av1": 63, "vp": 63, "theora": 63, "mpeg": 31}
"""The highest quality of encoders by the beginning of their names, above which they take another (hb_video_quality)."""


def value_problems(key: str, text: str, items: Sequence[str], choices: Sequence[str], is_number: bool) -> Iterator[str]:
    """Problems of an option's value: `text` as a whole, or its `items`. `choices` are the values in the help."""
    form, words = _FORMS.get(key, ("", ""))
    if form and not re.fullmatch(form, text, re.ASCII):
        yield f"expected {words}, got {text!r}"
    form, words = _ITEMS.get(key, ("", ""))
    if not form and (is_number or key in _WORDS):
        form, words = "|".join(("", _NUMBER, *_WORDS.get(key, ()))), " or ".join(("a number", *_WORDS.get(key, ())))
    for item in items:
        if form and not re.fullmatch(form, item, re.ASCII):
            yield f"expected {words}, got {item!r}"
        elif key in _LISTED and choices and item.lower() not in choices:
            yield f"{item!r} is none of {', '.join(choices)}{suggestion(item, choices)}"
        elif key == "arate" and choices and not _is_rate(item, choices):
            yield f"{item!r} is no sample rate that it has: {', '.join(choices)} kHz, or auto"


def _is_rate(item: str, choices: Sequence[str]) -> bool:
    """True for kHz, Hz or `auto`."""
    in_hertz = {f"{float(choice) * 1000:.0f}" for choice in choices}
    return item.strip().lower() in {"", "auto", *choices, *in_hertz}


def high_quality(encoder: str, items: Sequence[str]) -> str | None:
    """A line for a person if a quality is beyond what the encoder has."""
    highest = next((number for name, number in _HIGHEST.items() if encoder.lower().startswith(name)), None)
    for item in items:
        if highest is not None and item and float(item) > highest:
            return f"{item} is more than {encoder} has: it takes {highest} (a low number is a good quality)"
    return None
