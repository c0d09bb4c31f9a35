"""`sisyphus-client modules`: what is enabled, its tools and limits, and what is wrong with it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.modules.steps import put_program
from tests.support.supervised import Supervised


def rows(printed: str) -> dict[str, str]:
    """What is told of each module: its line, and those below it."""
    found: dict[str, str] = {}
    name = ""
    for line in printed.splitlines():
        if begins := re.match(r"(\w+) +(ready|cannot run) ", line):
            name = begins[1]
        elif not line.startswith("    "):
            name = ""
        if name:
            found[name] = found.get(name, "") + line + "\n"
    return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Puts an ffmpeg that does what a script says first into PATH; the script may call the real one."""
    return lambda script: put_program(tmp_path / "bin", "ffmpeg", script, monkeypatch)


def test_table(supervised: Supervised) -> None:
    """Each module: where it comes from, its tools' paths and versions, the limits that are set, and that it can run."""
    supervised.configure({"memory": "8GiB", "stall_timeout": "off", "ffmpeg": {"run_timeout": "2d"}})

    done = supervised.command("modules")

    found = rows(done.stdout)
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert sorted(found) == ["benign", "cleanup", "ffmpeg", "hostile", "stubborn"]
    for words in ("modules.ffmpeg.Ffmpeg", "modules/ffmpeg/__init__.py", shutil.which("ffmpeg"), "ffprobe ", "ready"):
        assert str(words) in found["ffmpeg"]
    assert "tests/hostile.py" in found["hostile"]
    assert "run_timeout 2d" in found["ffmpeg"]
    assert "run_timeout" not in found["cleanup"]
    assert all("memory 8GiB, " in row or "grace 200ms, " in row for row in found.values())
    assert all("stall_timeout off" in row and "max_attempts" not in row for row in found.values())


def test_missing_tool(supervised: Supervised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is not installed is named, with what to install; the status is 1."""
    monkeypatch.setenv("PATH", str(tmp_path))

    done = supervised.command("modules")

    found = rows(done.stdout)
    assert "cannot run" in found["ffmpeg"]
    assert "ffmpeg: ffmpeg is not installed, or not on PATH (install ffmpeg)" in done.stdout
    assert "ready" in found["cleanup"]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo broken >&2; exit 127", "ffmpeg exited with status 127: broken"),
        ("kill -SEGV $$", "ffmpeg was killed by SIGSEGV"),
        ("echo hello", "ffmpeg does not tell its version"),
    ],
)
def test_broken_tool(supervised: Supervised, fake: Callable[[str], object], script: str, said: str) -> None:
    """A tool that does not even tell its version cannot run."""
    fake(script)

    done = supervised.command("modules")

    assert f"ffmpeg: {said}" in done.stdout
    assert done.returncode == 1


def test_hostile_modules(supervised: Supervised, tmp_path: Path) -> None:
    """A module that cannot be imported, crashes or hangs when it is, or is no module, harms no other's row."""
    (tmp_path / "crashes.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    (tmp_path / "hangs.py").write_text("import time\nwhile True:\n    time.sleep(1)")
    (tmp_path / "wrong.py").write_text("Wrong = 5\n")
    (tmp_path / "idle.py").write_text("class Idle:\n    def validate(self):\n        pass\n")
    modules = {"absent": "absent.Absent", "crashes": "crashes.C", "hangs": "hangs.H", "wrong": "wrong.Wrong"}
    modules["idle"] = "idle.Idle"
    limits = {"hangs": {"init_timeout": "500ms"}}  # the others have all the time they need
    supervised.configure(limits, modules | {"old": "tests.guide.NotDerived"}, (str(tmp_path),))

    done = supervised.command("modules")

    found = rows(done.stdout)
    wrong = {line.split(":")[0]: line for line in done.stdout.splitlines() if re.match(r"\w+: ", line)}
    assert "cannot be imported: ModuleNotFoundError" in wrong["absent"]
    assert "SIGSEGV" in wrong["crashes"]
    assert "did not end within 500ms" in wrong["hangs"]
    assert "has no class Wrong" in wrong["wrong"]
    assert "idle.Idle is no module: it has no method run" in wrong["idle"]
    assert all("cannot run" in found[name] for name in wrong)
    assert all("ready" in found[name] for name in ("old", "cleanup", "ffmpeg", "hostile"))
    assert done.returncode == 1


def test_nothing_enabled(supervised: Supervised) -> None:
    """Without modules the table is empty, and nothing is wrong."""
    supervised.config.write_text("[tool.client]\n")

    done = supervised.command("modules")

    assert (done.returncode, rows(done.stdout)) == (0, {})


def test_probe(supervised: Supervised, tmp_path: Path, fake: Callable[[str], object]) -> None:
    """Encoders are tried, not only listed: those that work are named, and why the others do not."""
    listing = (
        " V....D libx264 x\n V....D h264_nvenc x (codec h264)\n A....D aac x\n S..... dvbsub x\n V..... none_such x\n"
    )
    (tmp_path / "listing").write_text(listing)
    fake(f'case "$*" in *-encoders*) cat "{tmp_path}/listing";; *) exec ffmpeg "$@";; esac')

    done = supervised.command("modules", "--probe")

    said = done.stdout[done.stdout.index("ffmpeg: ") :].splitlines()
    assert said[:3] == ["ffmpeg: 2 of 5 encoders work here:", "    libx264, aac", "and these do not:"]
    assert [line.split(":")[0].strip() for line in said[3:]] == ["h264_nvenc", "dvbsub", "none_such"]
    assert "Unknown encoder 'none_such'" in said[-1]
    assert done.returncode == 0


def test_probe_without_any(supervised: Supervised, fake: Callable[[str], object]) -> None:
    """A tool none of whose encoders works cannot run."""
    fake('case "$*" in *-encoders*) echo " V....D libx264 x";; *-version*) echo ffmpeg version 5.1;; *) exit 3;; esac')

    done = supervised.command("modules", "--probe")

    assert "ffmpeg: none of its encoders works" in done.stdout
    assert "libx264: ffmpeg exited with status 3" in done.stdout
    assert done.returncode == 1


@pytest.mark.slow
def test_probe_of_all(supervised: Supervised, fake: Callable[[str], object]) -> None:
    """Of the ffmpeg that is installed, the software encoders that every build has work, whatever hardware is there.

    The listing is cut down to these and some for hardware: all two hundred of them take a minute.
    """
    kept = "libx264|mpeg4|aac|flac|ffv1|srt|_nvenc|_vaapi"
    fake(f'case "$*" in *-encoders*) ffmpeg "$@" | grep -E "{kept}";; *) exec ffmpeg "$@";; esac')

    done = supervised.command("modules", "--probe")

    working = done.stdout[done.stdout.index("encoders work here:") : done.stdout.index("and these do not:")]
    names = {name.strip() for name in working.partition(":")[2].replace("\n", " ").split(",")}
    assert {"libx264", "mpeg4", "aac", "flac", "ffv1", "srt"} <= names
    assert done.returncode == 0
