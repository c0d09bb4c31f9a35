"""The programs of MKVToolNix: what they say of files, and how they are listened to."""

from pathlib import Path
from typing import Any

import pytest

from modules.mkvmerge import Mkvmerge
from modules.mkvtoolnix import Track
from tests.modules.mkvmerge.scene import carry_out, refusal, task, tracks
from tests.support.films import ffmpeg


def test_numbered_siblings(tmp_path: Path) -> None:
    """A file of a numbered series is that file alone, when it is identified and when it is muxed."""
    video = ["-f", "lavfi", "-i", "testsrc=size=352x288:rate=25:duration=1"]
    ffmpeg(*video, "-c:v", "mpeg2video", "-f", "vob", tmp_path / "VTS_01_1.VOB")
    ffmpeg(*video, "-f", "lavfi", "-i", "sine=duration=1", "-c:v", "mpeg2video", "-f", "vob", tmp_path / "VTS_01_2.VOB")

    carry_out(task(tmp_path / "VTS_01_1.VOB", tmp_path / "out.mkv"))

    assert [kind for kind, _ in tracks(tmp_path / "out.mkv")] == ["video"]
    missing = refusal(task(tmp_path / "VTS_01_1.VOB", tmp_path / "x.mkv", tracks=[{"source": 0, "track": 1}]))
    assert missing == "tracks[0].track: 1, but sources[0] has only these tracks: 0 (video)"


def test_progress_beyond_all(tmp_path: Path, film: Path) -> None:
    """What mkvmerge says beyond 100 %, or less than before, is not passed on."""
    seen: list[float] = []

    class Watched(Mkvmerge):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append(self.sisyphus_context.status.get("progress", 0))

        def said(self, *percents: str) -> None:
            script = "".join(f"echo '#GUI#progress {percent}';" for percent in percents)
            self._execute(["sh", "-c", script], {})

    Watched(task(film, tmp_path / "out.mkv")).said("0%", "5%", "669%", "4%", "nothing", "nan%", "100%")

    assert seen == [0, 0, 5, 5, 99.9, 99.9]


def test_flood_of_warnings(film: Path, tmp_path: Path) -> None:
    """Of countless warnings the first are on the record, and how many more there were."""
    module = Mkvmerge(task(film, tmp_path / "out.mkv"))

    script = 'for i in $(seq 60); do echo "#GUI#warning no $i"; done; exit 1'

    assert module._execute(["sh", "-c", script], {})
    assert module.sisyphus_context.warnings[::25] == ("mkvmerge: no 1", "mkvmerge: no 26", "mkvmerge: 10 more warnings")


@pytest.mark.parametrize(
    ("language", "told", "is_found"),
    [
        ("ger", "deu", True),
        ("de", "ger", True),
        ("deu", "de", True),
        ("ger", "DEU", True),
        ("GER", "ger", True),
        ("pt-br", "pt-BR", True),
        ("ger", "eng", False),
        ("d*", "deu", False),
        ("und", "deu", False),
    ],
)
def test_languages(language: str, told: str, is_found: bool) -> None:
    """All codes of a language mean it, whoever wrote them how; files of Ogg have any case of letters."""
    assert Track(0, "audio", languages=frozenset([told])).has_language(language) is is_found
