"""Predict the tracks of mkvmerge's output from those of its sources, and check that the output has them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.exceptions import RunError
from modules.media import read_output
from modules.mkvmerge.command import SELECTING, copies_all, option_names
from modules.mkvtoolnix import Media, Track, identify

_RETIMING = {"default-duration", "stop-after-video-ends", "sync", "timecodes", "timestamps"}
"""Options that change a track's length: a negative offset, for one, cuts off its beginning."""


@dataclass(frozen=True)
class ExpectedTrack:
    """A track that the output will have, and the index of the source that it is from."""

    source: int
    track: Track
    is_retimed: bool = False


def expect_tracks(task: Mapping[str, Any], media: Sequence[Media]) -> list[ExpectedTrack]:
    """The tracks that the output will have at least, in its order: those that the task lists come first."""
    entries = task.get("tracks", [])
    listed = {(int(each["source"]), int(each["track"])): set(each.get("options", {})) for each in entries}
    found: dict[tuple[int, int], ExpectedTrack] = {}
    for index, source in enumerate(task["sources"]):
        options = source.get("options", {})
        names = option_names(task, index)
        if names & SELECTING:
            continue
        for track in media[index].tracks:
            key = (index, track.id)
            if key in listed or copies_all(options, track.type):
                is_retimed = bool((names | listed.get(key, set())) & _RETIMING)
                found[key] = ExpectedTrack(index, track, is_retimed)
    order = [*(key for key in listed if key in found), *(key for key in found if key not in listed)]
    return [found[key] for key in order]


def used_shares(task: Mapping[str, Any], media: Sequence[Media], expected: Sequence[ExpectedTrack]) -> dict[str, float]:
    """The share of each source, by its name, that goes into the output: 1 if the bytes of its tracks are not known."""
    found: dict[str, float] = {}
    for index, source in enumerate(task["sources"]):
        name = source["filename"]
        counts = [entry.track.bytes for entry in expected if entry.source == index]
        counts += media[index].attachments.values()
        known = [count for count in counts if count is not None]
        is_known = len(known) == len(counts) and not option_names(task, index) & SELECTING
        share = sum(known) / max(os.path.getsize(name), 1) if is_known else 1.0
        found[name] = min(found.get(name, 0.0) + share, 1.0)
        found |= dict.fromkeys(source.get("append", ()), 1.0)
    return found


def attachment_names(task: Mapping[str, Any], attached: Sequence[str]) -> set[str]:
    """The names of the output's attachments. Of two alike in name, type and size, mkvmerge keeps only one."""
    named = {entry.get("name") or os.path.basename(entry["filename"]) for entry in task.get("attachments", [])}
    return named | {os.path.basename(name) for name in attached}


def frames_of_pictures(
    task: Mapping[str, Any], media: Sequence[Media], frames: Mapping[tuple[int, int], int]
) -> dict[str, int]:
    """The frames that the output has of each source's first video track, by the sources' names."""
    found: dict[str, int] = {}
    for index, source in enumerate(task["sources"]):
        first = next((track.id for track in media[index].tracks if track.type == "video"), -1)
        if "append" not in source and (index, first) in frames:
            found[source["filename"]] = frames[index, first]
    return found


def verify_output(name: str, expected: Sequence[ExpectedTrack], attachments: set[str]) -> dict[tuple[int, int], int]:
    """Check that the file is whole. Returns the frames of its tracks by the source and its track, as far as known.

    Raises:
        RunError: The file is empty, unreadable or cut short, or lacks a track or an attachment.
    """
    found = read_output(name, identify)
    _verify_contents(found, [entry.track for entry in expected], attachments)
    frames: dict[tuple[int, int], int] = {}
    for kind in ("video", "audio"):  # of subtitles, some may be empty
        # Within a type the order is as expected; without it, newer versions of mkvmerge order by type.
        written = [track for track in found.tracks if track.type == kind]
        wanted = [entry for entry in expected if entry.track.type == kind]
        if len(written) == len(wanted):  # else the sources' own options have added some, and nothing tells which
            for track, entry in zip(written, wanted, strict=True):
                _verify_length(track, entry)
                if track.frames is not None and not entry.is_retimed:
                    frames[entry.source, entry.track.id] = track.frames
    return frames


def _verify_contents(found: Media, expected: Sequence[Track], attachments: set[str]) -> None:
    if not found.tracks:
        raise RunError(message="the output has no tracks")
    counts = Counter(track.type for track in found.tracks)
    for kind, count in Counter(track.type for track in expected).items():
        if counts[kind] < count:
            raise RunError(message=f"the output has {counts[kind]} {kind} tracks of {count}")
    if len(found.attachments) < len(attachments):
        raise RunError(message=f"the output has {len(found.attachments)} attachments of {len(attachments)}")


def _verify_length(track: Track, expected: ExpectedTrack) -> None:
    length, least = track.span, expected.track.span
    if length is None or least is None or expected.is_retimed:
        return
    # A block of sound can last a second (TTA), and the duration of the last one is not exact.
    tolerance = min(max(2.0, min(least / 100, 10.0)), least / 2)
    if length < least - tolerance:
        raise RunError(
            message=f"the output is cut short: {length:.1f} s of track {expected.track.id} "
            f"of sources[{expected.source}], which has {least:.1f} s (it may be damaged)"
        )
