"""How the `handbrake` module fails, with the real HandBrakeCLI and tiny clips."""

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError, ValidationError
from modules.base import location
from modules.handbrake import Handbrake
from modules.output import Output
from tests.modules.handbrake.scene import CAREFUL, DONE, SLOW, carry_out, refusal, stand_in, task
from tests.support.media import Interrupted, terminated_when

pytestmark = pytest.mark.tools


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
    ("sections", "said"),
    [
        ({"video": {"encoder_preset": "ultrafst"}}, "x264 has no 'ultrafst' (did you mean 'ultrafast'?)"),
        ({"video": {"encoder_tune": "filmm"}}, "x264 has no 'filmm' (did you mean 'film'?)"),
        ({"video": {"encoder_profile": "higg"}}, "x264 has no 'higg' (did you mean 'high'?)"),
        ({"video": {"quality": "good"}}, "video_options.quality: expected a number, got 'good'"),
        ({"video": {"vb": "1M"}}, "video_options.vb: expected a number, got '1M'"),
        ({"audio": {"audio": "jpn"}}, "audio_options.audio: expected a number or none, got 'jpn'"),
        ({"audio": {"audio": [1, "x"]}}, "audio_options.audio: expected a number or none, got 'x'"),
        ({"audio": {"audio": "1,2", "ab": [128, "lots"]}}, "audio_options.ab: expected a number, got 'lots'"),
        ({"subtitles": {"subtitle": "first"}}, "subtitles_options.subtitle: expected a number or scan or none"),
        ({"picture": {"width": "wide"}}, "picture_options.width: expected a number, got 'wide'"),
        ({"source": {"start_at": {"seconds": 1}, "stop_at": {"frames": 20}}}, "expected the unit of start_at"),
        ({"source": {"start_at": {"seconds": 100}}}, "source_options.start_at: is after the end of"),
        ({"source": {"chapters": "2-9"}}, "chapters: 9, but"),
    ],
)
def test_what_fails_late_or_never(sections: dict[str, Any], said: str, film: Path, tmp_path: Path) -> None:
    """What HandBrakeCLI would refuse only when it encodes, or takes for something else without a word."""
    sections = {**sections, "video": {"encoder": "x264", **sections.get("video", {})}}

    assert said in refusal(task(film, tmp_path / "out.mkv", **sections))


@pytest.mark.parametrize(
    "sections",
    [
        {"video": {"encoder": "x264", "encoder_preset": "Fast", "encoder_tune": "film,fastdecode", "quality": "20.5"}},
        {"audio": {"audio": "none", "ab": "128, 192"}},
        {"audio": {"audio": [1, 2], "ab": [128.0, 192], "gain": "-2.5,0"}, "subtitles": {"subtitle": ["scan", 1]}},
        {"source": {"start_at": {"seconds": 1}, "stop_at": {"duration": 1}}},
        {"audio": {"audio": None}, "subtitles": {"subtitle": None}},
    ],
)
def test_what_is_right(sections: dict[str, Any], film: Path, tmp_path: Path) -> None:
    """Numbers as text and in lists, names in any case, and nothing of a kind."""
    Handbrake(task(film, tmp_path / "out.mkv", **sections)).validate()


def test_refused_by_the_encoder(film: Path, tmp_path: Path) -> None:
    """An exit status goes on the record, with the lines that tell why at the end of the log."""
    with pytest.raises(RunError, match=r"HandBrakeCLI exited with status 3: x264 \[error\]: invalid preset") as caught:
        Handbrake(task(film, tmp_path / "out.mkv", video={"encoder_preset": "spam"})).run()

    assert caught.value.exit_status == 3
    assert caught.value.stderr[-1].startswith("ERROR: Failure to initialise thread")
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
    monkeypatch.setattr("modules.handbrake.require_space", lambda _, sizes: needs.append(sizes))

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


def test_tracks_of_a_source_that_came_later(film: Path, tmp_path: Path) -> None:
    """What an earlier task wrote is looked into before the encode."""
    source = tmp_path / "soon.mkv"
    module = Handbrake(task(source, tmp_path / "out.mkv", audio={"audio": [3]}))
    module.sisyphus_context.files = {location(str(source)): True}
    module.validate()
    source.symlink_to(film)

    with pytest.raises(RunError, match=r"audio_options\.audio: 3, but .* has only audio tracks 1 to 2"):
        module.run()


def test_killed(long: Path, tmp_path: Path) -> None:
    """A HandBrakeCLI that a signal kills is a RunError that names the signal; nothing is left."""

    class Killing(Handbrake):
        def report(self, progress: float | None = None, info: Any = None, *, done: bool = False) -> None:
            super().report(progress, info, done=done)
            if progress is not None:
                psutil.Process().children()[0].kill()

    with pytest.raises(RunError, match=r"HandBrakeCLI was killed by SIGKILL \(killed\)") as caught:
        Killing(task(long, tmp_path / "out.mkv", video=CAREFUL)).run()

    assert caught.value.signal == "SIGKILL"
    assert caught.value.stderr
    assert os.listdir(tmp_path) == []


def test_interrupted(long: Path, tmp_path: Path) -> None:
    """A run that is asked to stop takes HandBrakeCLI and the unfinished file with it; the old file stays."""
    target = tmp_path / "out.mp4"
    target.write_text("old")
    temporary = Output(str(target)).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Handbrake(task(long, target, video=CAREFUL)).run()

    assert psutil.Process().children() == []
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert target.read_text() == "old"


def test_crash(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HandBrakeCLI that crashes is named with its signal, and not stdbuf that started it."""
    stand_in(tmp_path / "bin", "kill -SEGV $$", monkeypatch)
    with pytest.raises(
        RunError, match=r"^HandBrakeCLI was killed by SIGSEGV \(segmentation fault\); the command was: H"
    ):
        Handbrake(task(film, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_vanishing_directory(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target directory that vanishes while HandBrakeCLI is at work is an error."""
    (tmp_path / "there").mkdir()
    stand_in(tmp_path / "bin", f"rm -r {tmp_path}/there; echo '{DONE}'", monkeypatch)

    with pytest.raises(RunError, match=r"^HandBrakeCLI exited with status 0, but there is no output; the command"):
        Handbrake(task(film, tmp_path / "there" / "out.mkv")).run()


@pytest.mark.parametrize("lines", ["true", 'echo \'{"State": "WORKDONE"}\'; echo part >"$output"'])
def test_no_work_done(lines: str, tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 0 without a `WORKDONE` is a failure, even with a file."""
    stand_in(tmp_path / "bin", lines, monkeypatch)
    with pytest.raises(RunError, match=r"^HandBrakeCLI exited with status 0, but there is no output"):
        Handbrake(task(film, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == ["bin"]


@pytest.mark.parametrize(
    ("target", "missing"),
    [("out.mkv", 200), *(pytest.param(*case, marks=SLOW) for case in [("out.mkv", 20_000), ("out.mp4", 200)])],
)
def test_full_disk(
    target: str, missing: int, film: Path, tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    """That there was no more room comes first in the error, even if HandBrakeCLI exits with 0, as for the end alone."""
    data = task(film, tmp_path / target, source={"stop_at": {"seconds": 2}})
    Handbrake(data).run()
    limit = (tmp_path / target).stat().st_size - missing
    (tmp_path / target).unlink()
    with (
        small_disk(limit),
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


@pytest.mark.slow
def test_stale_temporaries(film: Path, tmp_path: Path) -> None:
    """What a killed process left goes with the next run of the same target, and with the job's own cleanup."""
    data = task(film, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}})
    Path(Output(data["output_file"], tag="killed").temporary).touch()
    carry_out(data)
    Path(Output(data["output_file"]).temporary).touch()

    Handbrake(data).cleanup()

    assert os.listdir(tmp_path) == ["out.mkv"]


def test_missing_tools(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not installed are named before anything runs, and also if they vanish afterwards."""
    module = Handbrake(task(film, tmp_path / "out.mkv"))
    module.validate()
    monkeypatch.setenv("PATH", str(tmp_path))

    message = refusal(task(film, tmp_path / "none" / "out.mkv"))

    assert "HandBrakeCLI is not installed, or not on PATH (install handbrake-cli); ffprobe is not installed" in message
    assert f"there is no directory {tmp_path}/none" in message
    for step in (module.run, module.plan):
        with pytest.raises((RunError, ValidationError), match="HandBrakeCLI is not installed"):
            step()
