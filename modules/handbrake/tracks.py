"""The tracks of HandBrakeCLI's output: those that a task asks for, and those that are not there.

HandBrakeCLI leaves out a track that it cannot copy, that the container does not take, or that the source lacks in the
language asked for. A line in its log is all that it says. So its log is read for the tracks that it encodes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modules.command import Options
from modules.handbrake.options import TOOL, Known, entries, items, numbers, options_of, preset_query, read_preset

_PRESET_NAMES = {"audio": "Audio", "subtitle": "Subtitle"}
"""The types of tracks, and what the names of their settings in a preset begin with."""

_ENCODED = re.compile(
    r"(?:\[[\d:]+\] )? *(?:\+ decoder: .*\(track (?P<audio>\d+), id 0x"
    r"|\* subtitle track \d+, .*\(track (?P<subtitle>\d+), id 0x(?!ff))"
)
"""Log lines of the job. Audio tracks are counted from 1 and subtitles from 0; ids from 0xff000000 on are of files."""

_DROPPED = re.compile(
    r"(?:\[[\d:]+\] |Warning: )?((?:Passthru requested|Skipping (?:audio|subtitle) track|Subtitle pass-?thru).*)"
)

_BITRATE = re.compile(r"(?:\[[\d:]+\])? +\+ bitrate: (\d+) kbps, samplerate")
"""Log lines of the job about audio tracks."""

_MIXED = re.compile(r"(?:\[[\d:]+\] )?work: mixdown not specified, track (\d+) setting mixdown (.*)")
"""Log lines about tracks of the output, counted from 1, whose mixdown is none that HandBrakeCLI knows."""

_ANY = {"any", "und"}
"""Codes in a preset's list that stand for every language."""


_LANGUAGES = {"audio_lang_list": "Audio", "native_language": "Subtitle", "subtitle_lang_list": "Subtitle"}
"""Options that take languages, and the type of tracks in whose list a preset holds them."""

_OF_FILES = {"srt_lang", "ssa_lang"}
"""Options that take languages of files, which no preset holds."""

_OF_LIST = dict.fromkeys(("subtitle_burned", "subtitle_default", "subtitle_forced"), "subtitle") | {
    f"{kind}_{option}": f"{kind}_file" for kind in ("srt", "ssa") for option in ("burn", "default")
}
"""Options whose number is a place in a list, and that list."""

_PREVIEWS = 10
"""Previews that a scan makes, unless `previews` says otherwise."""


def selection_problems(task: Mapping[str, Any], known: Known) -> Iterator[str]:
    """Languages that HandBrakeCLI does not know: it takes any in their place. And places that a list does not have.

    Raises:
        RunError: HandBrakeCLI cannot be started.
    """
    lists = options_of(task)
    for where, key, value in entries(task):
        if isinstance(value, bool):
            continue
        if key in _LANGUAGES or key in _OF_FILES:
            asked = "subtitle_lang_list" if key in _OF_FILES else key
            with preset_query({"options": {asked: value}}, known) as query:
                codes = read_preset(query).get(f"{_LANGUAGES[asked]}LanguageList", [])
            for name, code in zip(items(value), codes, strict=False):
                if code == "any" and name.lower() != "any":
                    yield f"{where}: {TOOL} knows no language {name!r} (expected a code such as eng)"
        elif key == "start_at_preview":
            count = next(iter(numbers(str(lists.get("previews", "")).partition(":")[0])), _PREVIEWS)
            for number in numbers(value):
                if number > count:
                    yield f"{where}: {number}, but there are only {count} previews"
        elif (listed := lists.get(_OF_LIST.get(key, ""))) is not None:
            for number in numbers(value):
                if number > (count := len(items(listed))):
                    yield f"{where}: {number}, but {_OF_LIST[key]} lists only {count}"


class TrackLog:
    """Reads the lines about tracks in HandBrakeCLI's log.

    Attributes:
        encoded: The source's tracks that are encoded, counted from 1, by type.
        burned: The subtitles among them that become a part of the picture.
        reasons: Lines that say why a track is left out.
        bitrates: The bit rates at which audio is encoded, in kbit/s.
        mixdowns: The mixdowns that HandBrakeCLI has chosen itself, by the output's audio tracks, counted from 1.
    """

    def __init__(self) -> None:
        self.encoded: dict[str, set[int]] = {kind: set() for kind in _PRESET_NAMES}
        self.burned: set[int] = set()
        self.reasons: list[str] = []
        self.bitrates: list[int] = []
        self.mixdowns: dict[int, str] = {}

    def take(self, line: str) -> None:
        if match := _ENCODED.match(line):
            if match["audio"]:
                self.encoded["audio"].add(int(match["audio"]))
            else:
                self.encoded["subtitle"].add(int(match["subtitle"]) + 1)
                if line.endswith("Burn-in"):
                    self.burned.add(int(match["subtitle"]) + 1)
        elif (match := _DROPPED.match(line)) and match[1] not in self.reasons:
            self.reasons.append(match[1])
        elif match := _BITRATE.match(line):
            self.bitrates.append(int(match[1]))
        elif match := _MIXED.match(line):
            self.mixdowns[int(match[1])] = match[2]


Languages = Mapping[str, Sequence[str]]
"""The language of each track of the source, by type."""


def lost_tracks(
    options: Options, preset: Mapping[str, Any], source: Languages, log: TrackLog, counts: Mapping[str, int]
) -> Iterator[str]:
    """A line for each track that was asked for and is not in the output.

    `options` are the task's, `preset` is what HandBrakeCLI makes of them, `counts` are the output's streams by type.
    """
    for kind in _PRESET_NAMES:
        encoded = log.encoded[kind]
        for number, language in _asked(kind, options, preset, source.get(kind, ())):
            if number is None:
                yield f"{kind} tracks of the language {language} were asked for, and the source has none"
            elif number not in encoded and (encoded or not counts.get(kind)):  # else the log is not understood
                yield f"{kind} track {number}{_named(language)} was asked for, and is not in the output{_because(log)}"
        if counts.get(kind, 0) < (expected := len(encoded - log.burned)):
            yield f"the output has {counts.get(kind, 0)} {kind} tracks of {expected}"
    if "subtitle_burned" not in options and preset.get("SubtitleBurnBehavior") == "none":
        for number in sorted(log.burned):
            yield f"subtitle track {number} is burned into the picture: the container takes no track of its kind"


def other_bitrates(options: Options, log: TrackLog) -> Iterator[str]:
    """A line for each bit rate that was asked for and that the encoder does not have: HandBrakeCLI takes another."""
    for asked in numbers(options.get("ab", ""))[: len(log.bitrates)]:
        if asked and asked not in log.bitrates:  # 0 is the encoder's default
            yield f"ab: {asked} kbit/s were asked for, and the audio has {', '.join(map(str, log.bitrates))}"


def other_mixdowns(options: Options, log: TrackLog) -> Iterator[str]:
    """A line for each mixdown that was asked for and that HandBrakeCLI does not know: it takes another."""
    asked = items(options.get("mixdown", ""))
    for number, chosen in log.mixdowns.items():
        name = asked[min(number, len(asked)) - 1].strip() if asked else ""
        if name.lower() not in {"", "none", "auto"}:
            yield f"mixdown: {TOOL} knows no {name!r}, and audio track {number} has {chosen}"


def lost_audio(
    options: Options, preset: Mapping[str, Any], count: int, log: TrackLog, counts: Mapping[str, int]
) -> str | None:
    """A message for a person if none of the source's `count` audio tracks is in the output, and some should be."""
    is_refused = (
        not numbers(options["audio"] or "none")
        if "audio" in options
        else preset.get("AudioTrackSelectionBehavior") == "none"
    )
    if counts.get("audio") or not count or is_refused:
        return None
    return f"the output has no audio, though the source has ({count}), and none was refused{_because(log)}"


def _asked(
    kind: str, options: Options, preset: Mapping[str, Any], languages: Sequence[str]
) -> Iterator[tuple[int | None, str]]:
    """The numbers and languages of the tracks asked for; `None` as the number of one that the source does not have."""
    if kind in options:
        for number in dict.fromkeys(numbers(options[kind] or "none")):
            yield number, languages[number - 1] if 0 < number <= len(languages) else ""
        return
    name = _PRESET_NAMES[kind]
    behavior = preset.get(f"{name}TrackSelectionBehavior")
    if behavior not in {"first", "all"}:
        return
    for language in preset.get(f"{name}LanguageList") or ["any"]:
        found = [number for number, own in enumerate(languages, 1) if language in {own, *_ANY}]
        yield from ((number, languages[number - 1]) for number in (found if behavior == "all" else found[:1]))
        if not found and language not in _ANY:
            yield None, language


def _named(language: str) -> str:
    return f" ({language})" if language not in {"", *_ANY} else ""


def _because(log: TrackLog) -> str:
    return f": {'; '.join(log.reasons)}" if log.reasons else ""
