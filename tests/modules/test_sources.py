"""Sources that are lists of other files, files that change while they are watched, and what ffprobe says of sources."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.exceptions import RunError
from modules.base import BaseModule
from modules.sources import Probes, Watch, list_kind, parts_of, plain_names

LISTS = {
    "ffconcat version 1.0\nfile a.ts\nfile 'b c.ts'\nfile 'd'\\''e.ts'\n": ["a.ts", "b c.ts", "d'e.ts"],
    '#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:1,\na.ts\nhttp://x/b.ts\n': ["init.mp4", "a.ts"],
    "\ufeff\n#EXTM3U\nlist\n": ["list"],  # itself
    "#EXTM3U\nfile:a.ts\nconcat:b.ts|c.ts\n": ["a.ts", "b.ts", "c.ts"],
    "a film": [],
}


@pytest.mark.parametrize("text", LISTS)
def test_parts(tmp_path: Path, text: str) -> None:
    """A list's files are found as the tools find them, beside the list; addresses are no files."""
    file = tmp_path / "list"
    file.write_text(text)

    assert parts_of(str(file)) == [str(tmp_path / name) for name in LISTS[text]]
    assert bool(list_kind(str(file))) == bool(LISTS[text])


def test_plain_names() -> None:
    """The files behind ffmpeg's protocols."""
    assert plain_names("concat:file:a|cache:b") == ["a", "b"]
    assert plain_names("subfile,,start,0,end,9,,:c") == ["c"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "written to": lambda file: file.write_text("more"),
    "removed": os.remove,
    "another file": lambda file: file.with_suffix(".new").rename(file),
}


@pytest.mark.parametrize("words", CHANGES)
def test_change_is_told(tmp_path: Path, words: str) -> None:
    """A file that changes while it is watched is an error that says how, and stands before the tool's own."""
    file = tmp_path / "film.mkv"
    file.write_text("film")
    file.with_suffix(".new").write_text("film")

    def read() -> None:
        with Watch(BaseModule({}), lambda: [str(file)]):
            CHANGES[words](file)
            raise RunError(message="the tool's reason")

    with pytest.raises(RunError, match=f"film.mkv: was .*{words}.*; the tool's reason"):
        read()


def test_probes(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come in the sources' order, empty for what is no media, and stay while the source does."""
    text, source = tmp_path / "text", tmp_path / "source.mkv"
    text.write_text("no media")
    source.write_bytes(clip.read_bytes())
    probes = Probes()
    names = [str(text), str(source), os.devnull, str(source), str(clip)]
    sources = [(name, name, ("-f", "matroska") if number == 3 else ()) for number, name in enumerate(names)]

    found = list(probes.answers(sources))
    monkeypatch.setenv("PATH", "")
    again = list(probes.answers(sources))
    os.utime(source)
    changed = list(probes.answers(sources))

    assert [len(each.get("streams", [])) for each in found] == [0, 2, 0, 2, 2]
    assert again == found
    assert changed == [{}, {}, {}, {}, found[4]]


def test_probes_stop(clip: Path) -> None:
    """Nothing that was begun ahead is left, whether or not it was for something."""
    probes = Probes()
    probes.begin([(str(clip), str(clip), ())])
    begun = psutil.Process().children()

    probes.stop()

    assert len(begun) == 1
    assert psutil.Process().children() == []
