"""Files that get their name when they are whole."""

import fcntl
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.exceptions import RunError
from modules.output import Output


def write(output: Output, text: str = "new") -> None:
    Path(output.temporary).write_text(text)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_commit(tmp_path: Path) -> None:
    """A committed file stands under its name, with a new file's mode, and nothing else is left."""
    old = os.umask(0o027)
    try:
        with Output(str(tmp_path / "a.mkv"), tag="job") as output:
            write(output)
            during = names(tmp_path)
            output.commit()
    finally:
        os.umask(old)

    assert during == [".a.job.sisyphus-part.mkv"]
    assert names(tmp_path) == ["a.mkv"]
    assert (tmp_path / "a.mkv").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "a.mkv").stat().st_mode) == 0o640


def test_no_commit(tmp_path: Path) -> None:
    """Without a commit the old file stays and the new one goes."""
    target = tmp_path / "a.mkv"
    target.write_text("old")

    def interrupted() -> None:
        with Output(str(target), overwrite=True) as output:
            write(output)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert names(tmp_path) == ["a.mkv"]
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "overwrite", "said"),
    [
        ("a.mkv", False, "exists, and is not to be overwritten"),
        ("link.mkv", False, "exists, and is not to be overwritten"),  # it leads nowhere
        ("none/a", False, "there is no directory .*/none"),
        ("there", True, "is a directory"),
        ("pipe", True, "is no regular file"),
        ("null", True, "is no regular file"),
    ],
)
def test_refusals(name: str, overwrite: bool, said: str, tmp_path: Path) -> None:
    """What is there and must not be replaced, or cannot be, is told before any work."""
    (tmp_path / "a.mkv").touch()
    (tmp_path / "there").mkdir()
    (tmp_path / "link.mkv").symlink_to("nowhere")
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    with pytest.raises(RunError, match=said), Output(str(tmp_path / name), overwrite=overwrite):
        pass

    assert names(tmp_path) == before


def test_race(tmp_path: Path) -> None:
    """A target that appears during the work is not replaced."""
    target = tmp_path / "a.mkv"
    with Output(str(target)) as output:
        write(output)
        target.write_text("someone else's")
        with pytest.raises(RunError, match="exists"):
            output.commit()

    assert target.read_text() == "someone else's"
    assert names(tmp_path) == ["a.mkv"]


def test_long_names(tmp_path: Path) -> None:
    """A name as long as can be is cut in the temporary one, between characters, and the extension kept."""
    target = tmp_path / ("é" * 125 + ".mkv")
    with Output(str(target), tag="job" * 10) as output:
        write(output)
        output.commit()

    name = os.path.basename(output.temporary)
    assert name.startswith(".é")
    assert re.search("é~[0-9a-f]{8}[.]" + "job" * 10 + "[.]sisyphus-part[.]mkv$", name)
    assert names(tmp_path) == [target.name]


def test_link(tmp_path: Path) -> None:
    """A target that is a link stays one: the file behind it is replaced, in its own directory."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real.mkv").write_text("old")
    (tmp_path / "link.mkv").symlink_to("far/real.mkv")
    with Output(str(tmp_path / "link.mkv"), overwrite=True) as output:
        write(output)
        output.commit()

    assert os.readlink(tmp_path / "link.mkv") == "far/real.mkv"
    assert (tmp_path / "far" / "real.mkv").read_text() == "new"


def test_stale(tmp_path: Path) -> None:
    """What a killed process left of this target is removed; what is in use, or another target's, is not."""
    target = str(tmp_path / "a.mkv")
    script = (
        "import os, sys; from modules.output import Output; Output(sys.argv[1], tag='dead').__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, target], check=False)
    assert names(tmp_path) == [".a.dead.sisyphus-part.mkv"]
    others = [
        ".a.b.dead.sisyphus-part.mkv",
        ".a.dead.sisyphus-part.mp4",
        ".b.dead.sisyphus-part.mkv",
        "a.dead.sisyphus-part.mkv",
    ]
    others.append(".a.backup.part.mkv")
    for name in (*others, ".a.live.sisyphus-part.mkv"):
        (tmp_path / name).touch()
    with open(tmp_path / ".a.live.sisyphus-part.mkv", "r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with Output(target, tag="mine") as output:
            write(output)
            output.commit()

    assert names(tmp_path) == sorted([*others, ".a.live.sisyphus-part.mkv", "a.mkv"])


def test_discard_in_use(tmp_path: Path) -> None:
    """What another task is writing stays, though its tag is the same: nobody else writes to it or discards it."""
    target = str(tmp_path / "a.mkv")
    with Output(target, tag="job") as first:
        write(first)
        with pytest.raises(RunError, match="another task is writing it"), Output(target, tag="job"):
            pass
        Output(target, tag="job").discard()
        first.commit()

    assert names(tmp_path) == ["a.mkv"]
    assert (tmp_path / "a.mkv").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o755])
def test_mode(mode: int, tmp_path: Path) -> None:
    """A file that is overwritten keeps its mode, and is no more readable meanwhile."""
    target = tmp_path / "a.mkv"
    target.write_text("old")
    target.chmod(mode)
    with Output(str(target), overwrite=True) as output:
        write(output)
        during = stat.S_IMODE(os.stat(output.temporary).st_mode)
        output.commit()

    assert during == mode | 0o600
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_text() == "new"
