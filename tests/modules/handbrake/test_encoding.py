"""The `handbrake` module encodes and fails, with the real HandBrakeCLI and tiny clips."""

import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, ValidationError
from modules.handbrake import Handbrake
from modules.handbrake.cli import Title
from modules.handbrake.expect import expect_encode, window
from modules.media import probe
from modules.output import Output
from tests.modules import steps
from tests.modules.handbrake.scene import DONE, SLOW, carry_out, duration, kinds, refusal, stand_in, task
from tests.support.disks import files_limited_to
from tests.support.media import Interrupted, look, make_clip, terminated_when

pytestmark = pytest.mark.tools


def test_encode(film: Path, tmp_path: Path) -> None:
    """An encode leaves the whole file under its name, with the tracks asked for, and nothing else."""
    audio = {"audio": [2, 1], "aencoder": ["opus", "av_aac"], "aname": ["One, two", "Three"]}
    module = carry_out(
        task(film, tmp_path / "out.mkv", audio=audio, subtitles={"subtitle": [2, 1], "subtitle_default": 2})
    )
    streams = look(tmp_path / "out.mkv")["streams"]

    assert os.listdir(tmp_path) == ["out.mkv"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert [stream["codec_type"] for stream in streams] == ["video", "audio", "audio", "subtitle", "subtitle"]
    assert [(stream["codec_name"], stream["tags"]["title"]) for stream in streams[1:3]] == [
        ("opus", "One, two"),
        ("aac", "Three"),
    ]
    assert [stream["disposition"]["default"] for stream in streams[3:]] == [0, 1]
    assert module.sisyphus_context.status["task"] == "handbrake"
    assert module.sisyphus_context.status["progress"] == 100
    assert module.sisyphus_context.warnings == ()


@pytest.mark.slow
def test_directory(film: Path, tmp_path: Path) -> None:
    """A source may be a directory: the structure of a disc, or files, each of which is a title."""
    directory = tmp_path / "disc"
    directory.mkdir()
    os.link(make_clip(tmp_path / "clip.mkv", seconds=1), directory / "a.mkv")
    os.link(film, directory / "b.mkv")
    carry_out(task(directory, tmp_path / "out.mkv", source={"title": 2}, audio={"audio": [2, 1]}))

    assert kinds(tmp_path / "out.mkv") == ["video", "audio", "audio"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert refusal(task(directory, directory / "out.mkv", source={"title": 2})) == (
        f"output_file: {directory}/out.mkv: is in the directory {directory}, whose files HandBrakeCLI numbers as titles"
    )


@pytest.mark.slow
def test_without_stdbuf(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stdbuf, the encode works all the same."""
    (tmp_path / "bin").mkdir()
    for name in ("HandBrakeCLI", "ffprobe"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    module = Handbrake(task(film, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}}))

    module.run()

    assert module.plan()[0].startswith("HandBrakeCLI --json")
    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("source", "start", "length"),
    [
        ({}, 0, math.inf),
        ({"start_at": {"seconds": 1}}, 1, math.inf),
        ({"start_at": {"seconds": 1}, "stop_at": {"seconds": 2}}, 1, 2),
        ({"start_at": "frames:25", "stop_at": {"frames": 50}}, 1, 2),
        ({"start_at": {"pts": 90_000}, "stop_at": {"duration": 2}}, 1, 2),
        ({"stop_at": {"seconds": 9}}, 0, 9),
        ({"chapters": 1}, 0, 1),
        ({"chapters": "2"}, 1, 2),
        ({"chapters": "2-3"}, 1, 3),
        ({"chapters": "2-9"}, 1, 3),
    ],
)
def test_windows(source: dict[str, Any], start: float, length: float) -> None:
    """Which part of the source is asked for."""
    assert window(source, Title("a.mkv", 4.0, ("und",), (), (1.0, 2.0, 1.0)), 25.0) == (start, length)


@pytest.mark.parametrize(
    ("source", "rate"),
    [
        ({"stop_at": {"frames": 50}}, None),
        ({"start_at": "soon"}, 25.0),
        ({"start_at": "hours:x"}, 25.0),
        ({"start_at_preview": 3}, 25.0),
        ({"chapters": "4"}, 25.0),
        ({"chapters": "x"}, 25.0),
        ({"chapters": "2", "stop_at": {"seconds": 1}}, 25.0),
    ],
)
def test_uncertain_windows(source: dict[str, Any], rate: float | None) -> None:
    """Where HandBrakeCLI decides what is encoded, nothing is expected."""
    assert window(source, Title("a.mkv", 4.0, ("und",), (), (1.0, 2.0, 1.0)), rate) is None


@pytest.mark.slow
@pytest.mark.parametrize("source", [{"start_at": {"frames": 25}, "stop_at": {"frames": 50}}, {"chapters": "2"}])
def test_parts(source: dict[str, Any], film: Path, tmp_path: Path) -> None:
    """Encodes of a part of the source pass, and are as long as expected."""
    title = Title(str(film), 4.0, ("und",) * 2, ("und",) * 2, (1.0, 2.0, 1.0))
    strict, hoped = expect_encode({**source, "audio": [1]}, title, probe(str(film)))

    carry_out(task(film, tmp_path / "out.mkv", source=source, audio={"audio": [1]}))

    assert strict.lengths == {}
    assert hoped.lengths == {"video": pytest.approx(2, abs=0.1)}
    assert strict.streams == {"video": 1, "audio": 1}
    assert hoped.streams == {"video": 1}
    # A chapter's end is where its last packets end.
    assert 1.9 < duration(tmp_path / "out.mkv") < (2.2 if "start_at" in source else 4)


def test_disc_is_hoped_for() -> None:
    """Of a disc nothing but its own tables tells the length: that is worth a warning, not an error."""
    strict, hoped = expect_encode({"start_at": {"seconds": 100}}, Title("/disc", 1100.0, ("und",), (), ()), {})

    assert strict.lengths == {}
    assert hoped.lengths == {"video": pytest.approx(900)}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"audio": [1, 2]}, 2),
        ({"audio": "2,1,1", "aencoder": ["opus"]}, 3),
        ({"audio": [1, 2], "aencoder": ["copy:ac3", "opus"]}, 1),
        ({"audio": [1, 2, 2], "aencoder": "opus,copy"}, 1),
        ({"audio": [1, 2], "aencoder": ["none", "opus"]}, 1),
        ({"audio": [1, 2], "preset": "Fast 1080p30"}, 0),
        ({"audio": "none"}, 0),
        ({"audio": None}, 0),
        ({"all_audio": True}, 0),
    ],
)
def test_certain_audio(options: dict[str, Any], count: int) -> None:
    """Tracks that are encoded have to be there; HandBrakeCLI leaves out those that it cannot copy."""
    strict, _ = expect_encode(options, None, {})

    assert strict.streams == {"video": 1, "audio": count}


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_half_an_output(extension: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that says all is well, and has written half of it, is not believed."""
    cut = 'for f in "$PWD"/.out.*; do truncate -s $(($(stat -c %s "$f") / 2)) "$f"; done'
    lines = f'HandBrakeCLI "$@"\ncase "$*" in *--output*) {cut};; esac'
    steps.put_program(tmp_path / "bin", "HandBrakeCLI", lines, monkeypatch)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RunError, match=r"cut short|cannot be read"):
        Handbrake(task(film, f"out.{extension}", audio={"audio": "none"})).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_truncated_source(film: Path, tmp_path: Path) -> None:
    """A source that ends in the middle is an error, though HandBrakeCLI says all is well; nothing is left."""
    half = tmp_path / "half.mkv"
    half.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(ValidationError, match=r"source: .*half\.mkv: is cut short: it has \d+ bytes, and states \d+"):
        carry_out(task(half, tmp_path / "out.mkv"))
    with pytest.raises(RunError, match=r"the source is cut short: .*half\.mkv: is cut short"):
        Handbrake(task(half, tmp_path / "out.mkv")).run()
    with pytest.raises(RunError, match=r"the output is cut short: \d\.\d s of video where 3\.\d s were expected"):
        carry_out(task(half, tmp_path / "out.mkv", source={"stop_at": {"seconds": 3.5}}))

    assert os.listdir(tmp_path) == ["half.mkv"]


def test_part_of_a_truncated_source(film: Path, tmp_path: Path) -> None:
    """A part that is there can be encoded, whatever becomes of the rest."""
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size * 3 // 4])

    carry_out(task(cut, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}}))

    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_part_with_a_long_frame(film: Path, tmp_path: Path) -> None:
    """A part that ends where the picture stands still for long is a good encode, and at most odd."""
    still = tmp_path / "still.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-vf", "select='lt(t,1)+gt(t,3)'"]
    subprocess.run([*argv, "-fps_mode", "vfr", "-c:v", "libx264", str(still)], check=True)

    module = carry_out(task(still, tmp_path / "out.mkv", source={"stop_at": {"seconds": 2.5}}))

    assert [warning[:24] for warning in module.sisyphus_context.warnings] == ["the output is cut short:"]


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"video": {"encoder": "spam"}}, r"ERROR: Invalid video encoder \(spam\)"),
        ({"video": {"spam": 1}}, r"unknown option \(--spam\)"),
        ({"destination": {"format": "spam"}}, r"ERROR: Invalid container \(spam\)"),
        ({"filters": {"hqdn3d": "spam"}}, "Invalid hqdn3d option spam"),
    ],
)
def test_nothing_encoded(sections: dict[str, Any], reason: str, film: Path, tmp_path: Path) -> None:
    """What HandBrakeCLI refuses with exit status 0 and no file is an error, with the line that tells why."""
    with pytest.raises(
        RunError,
        match=rf"^HandBrakeCLI exited with status 0, but there is no output: {reason}; the command was: HandBrakeCLI ",
    ) as caught:
        Handbrake(task(film, tmp_path / "out.mkv", **sections)).run()

    assert caught.value.exit_status == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "share"),
    [
        ({"start_at": {"seconds": 3}}, 0.25),
        pytest.param({}, 1.0, marks=SLOW),
        pytest.param({"chapters": 2}, 0.5, marks=SLOW),
    ],
)
def test_room(
    source: dict[str, Any], share: float, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of what goes in, as far as it is encoded, has to be free where the output goes."""
    needs: list[dict[str, int]] = []
    monkeypatch.setattr("modules.handbrake.checks.require_space", lambda _, sizes: needs.append(sizes))

    Handbrake(task(film, tmp_path / "out.mkv", source=source)).run()

    assert needs == [{str(tmp_path / "out.mkv"): pytest.approx(film.stat().st_size * share, rel=0.05)}]


def test_no_room(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun where there is no room, for a directory's files together, too."""
    monkeypatch.setattr("modules.context.current.free_space", (1e9, 0))
    (tmp_path / "disc" / "VIDEO_TS").mkdir(parents=True)
    os.link(film, tmp_path / "disc" / "VIDEO_TS" / "a.mkv")
    for source in (film, tmp_path / "disc"):
        module = Handbrake(task(source, tmp_path / "out.mkv"))
        module._is_scanned = True
        with pytest.raises(RunError, match=r"must be for the output .the limit free_space"):
            module.run()


@pytest.mark.parametrize(
    "lines",
    ["true", 'echo \'{"State": "WORKDONE"}\'; echo part >"$output"', f"rm -r ${{output%/*}}; echo '{DONE}'"],
    ids=["nothing", "no WORKDONE", "no directory"],
)
def test_no_work_done(lines: str, tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 0 without a `WORKDONE` is a failure, even with a file; and so is one without a file."""
    (tmp_path / "there").mkdir()
    stand_in(tmp_path / "bin", lines, monkeypatch)
    with pytest.raises(RunError, match=r"^HandBrakeCLI exited with status 0, but there is no output"):
        Handbrake(task(film, tmp_path / "there" / "out.mkv")).run()

    assert not list(tmp_path.glob("there/*"))


@pytest.mark.parametrize(
    ("target", "missing"),
    [("out.mkv", 200), *(pytest.param(*case, marks=SLOW) for case in [("out.mkv", 20_000), ("out.mp4", 200)])],
)
def test_full_disk(target: str, missing: int, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That there was no more room comes first in the error, even if HandBrakeCLI exits with 0, as for the end alone."""
    stand_in(tmp_path / "bin", "trap '' XFSZ; exec HandBrakeCLI \"$@\"", monkeypatch)  # an error, and no signal
    data = task(film, tmp_path / target, source={"stop_at": {"seconds": 2}})
    Handbrake(data).run()
    limit = (tmp_path / target).stat().st_size - missing
    (tmp_path / target).unlink()
    with (
        files_limited_to(limit),
        pytest.raises(RunError, match=f"^{tmp_path}/{target}: cannot be written: File too large"),
    ):
        Handbrake(data).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_unfinished_output(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Matroska file whose end could not be written is an error, even if there is room again."""
    unfinished = tmp_path / "bin" / "unfinished.mkv"
    lines = f"""cp {unfinished} "$output"; echo '{DONE}'"""
    stand_in(tmp_path / "bin", lines, monkeypatch)
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-c", "copy", "-live", "1"]
    subprocess.run([*argv, str(unfinished)], check=True)  # as live streams, which state none either
    with pytest.raises(RunError, match="the output states no duration"):
        Handbrake(task(film, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_asks_with_sigint(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HandBrakeCLI is asked to stop with the signal on which it closes its files."""
    log = tmp_path / "log"
    lines = f"trap 'echo INT >{log}; exit 1' INT; trap 'echo TERM >{log}; exit 1' TERM; echo something >\"$output\""
    stand_in(tmp_path / "bin", f"{lines}; while :; do sleep 0.02; done", monkeypatch)
    temporary = Output(str(tmp_path / "out.mp4")).temporary

    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Handbrake(task(film, tmp_path / "out.mp4")).run()

    assert log.read_text() == "INT\n"
