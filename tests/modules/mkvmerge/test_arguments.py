"""The command line of the `mkvmerge` module."""

import json
import shlex
from typing import Any

import pytest

from modules.mkvmerge.command import mkvmerge_command, shielded
from modules.mkvtoolnix import Media
from tests.modules.mkvmerge.scene import AUDIO, EXAMPLE, MENUS, NONE, VIDEO, listed, with_source, with_track
from tests.support.films import LEAD


@pytest.mark.parametrize(
    ("data", "media", "expected"),
    [
        (
            EXAMPLE,
            [VIDEO, AUDIO],
            "--no-global-tags --title 'A Title' "
            "--video-tracks 0 --no-subtitles --no-buttons --no-chapters --language 0:und --default-track 0:yes "
            "--track-name 0:Video '(' video.mkv ')' "
            "--no-video --audio-tracks 0 --no-subtitles --no-buttons --language 0:jpn '(' audio.ac3 ')' "
            "--attachment-mime-type application/vnd.ms-opentype --attachment-name Font --attach-file font.otf "
            "--attach-file /mnt/server/fonts/x.ttf --track-order 0:0,1:0",
        ),
        (listed(), [VIDEO], f"{NONE} '(' a.mkv ')'"),
        (
            listed(3, 2, 0, 1),
            [VIDEO],
            "--video-tracks 0 --audio-tracks 2,1 --subtitle-tracks 3 --no-buttons '(' a.mkv ')' "
            "--track-order 0:3,0:2,0:0,0:1",
        ),
        (
            listed(1),
            [MENUS],
            "--no-video --no-audio --no-subtitles --button-tracks 1 '(' a.mkv ')' --track-order 0:1",
        ),
        (
            listed(2, 0),
            [None],
            "--video-tracks 2,0 --audio-tracks 2,0 --subtitle-tracks 2,0 --button-tracks 2,0 '(' a.mkv ')' "
            "--track-order 0:2,0:0",
        ),
        (
            with_source(**{f"_copy-{name}-tracks": None for name in ("video", "audio", "subtitles", "buttons")}),
            [VIDEO],
            "'(' a.mkv ')'",
        ),
        (
            with_source(**{"_copy-video-tracks": True, "_copy-audio-tracks": False}),
            [VIDEO],
            "--no-audio --no-subtitles --no-buttons '(' a.mkv ')'",
        ),
        (
            with_source(**{"no-chapters": True, "no-attachments": False, "chapter-charset": "UTF-8"}),
            [VIDEO],
            f"{NONE} --no-chapters --chapter-charset UTF-8 '(' a.mkv ')'",
        ),
        (
            with_track(1, **{"sync": -300, "track-name": "a: b'c", "reduce-to-core": None, "no-track-tags": True}),
            [VIDEO],
            "--no-video --audio-tracks 1 --no-subtitles --no-buttons --sync 1:-300 --track-name '1:a: b'\"'\"'c' "
            "--reduce-to-core 1 --no-track-tags '(' a.mkv ')' --track-order 0:1",
        ),
        (
            with_track(0, **{"forced-display-flag": True, "default-track-flag": False, "aspect-ratio": 1.5}),
            [VIDEO],
            "--video-tracks 0 --no-audio --no-subtitles --no-buttons --forced-display-flag 0 --aspect-ratio 0:1.5 "
            "'(' a.mkv ')' --track-order 0:0",
        ),
        (
            listed(options={"chapters": "c.txt", "chapter-language": "jpn", "cluster-length": 5.0, "title": ""}),
            [VIDEO],
            f"--chapter-language jpn --cluster-length 5 --title '' --chapters c.txt {NONE} '(' a.mkv ')'",
        ),
        (
            listed(tracks=[{"source": 0.0, "track": 2.0, "options": {"track-name": "--x"}}], options={"title": "-y"}),
            [VIDEO],
            "--title -y --no-video --audio-tracks 2 --no-subtitles --no-buttons --track-name 2:--x '(' a.mkv ')' "
            "--track-order 0:2",
        ),
        (
            listed(attachments=[{"filename": "a"}, {"filename": "b", "mimetype": "text/plain"}]),
            [VIDEO],
            f"{NONE} '(' a.mkv ')' --attach-file a --attachment-mime-type text/plain --attach-file b",
        ),
        (
            listed(sources=[{"filename": "@a"}], attachments=[{"filename": "-b"}]),
            [AUDIO],
            f"{NONE} '(' ./@a ')' --attach-file ./-b",
        ),
    ],
)  # fmt: skip
def test_arguments(data: dict[str, Any], media: list[Media | None], expected: str) -> None:
    """Each kind of task data makes exactly these arguments."""
    attached = [f"{directory}/x.ttf" for directory in data.get("attachment_directories", [])]

    argv = mkvmerge_command(data, media, attached, "/out/.muxed.part.mkv")

    assert argv == [*LEAD, *shlex.split(expected)]


def test_arguments_like_option_files() -> None:
    """An argument that begins with `@` goes into an option file, since mkvmerge would read one of that name."""
    argv, files = shielded(["mkvmerge", "--title", '@home "x"', "a@b"])

    ((name, text),) = files.items()
    assert argv == ["mkvmerge", "--title", f"@{name}", "a@b"]
    assert json.loads(text) == ['@home "x"']
