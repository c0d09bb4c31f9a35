"""`replace` of the `cleanup` module, on real files and two real file systems."""

import json
import os
import select
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, Skipped
from modules.cleanup import Cleanup
from tests.modules import steps
from tests.support.disks import files_limited_to

LONG_AGO = 1_234_567_890

carry_out = partial(steps.carry_out, Cleanup)
problems = partial(steps.problems, Cleanup)


@pytest.fixture(params=["near", "elsewhere"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory with `film`, the old file, of 1000 bytes; beside it is `new`, on the same file system or another."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        new = tmp_path / "files" if request.param == "near" else Path(shared)
        if request.param != "near" and new.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no second file system: /dev/shm holds the tests' directory itself")
        (tmp_path / "files").mkdir()
        write(tmp_path / "files" / "film", 1000, 0o640, LONG_AGO)
        write(new / "new", 500, 0o600, LONG_AGO + 1)
        if new != tmp_path / "files":
            (tmp_path / "files" / "new").symlink_to(new / "new")
        yield tmp_path / "files"


def write(path: Path, size: int, mode: int = 0o644, time: float = LONG_AGO) -> Path:
    path.write_bytes(path.name[:1].encode() * size)
    path.chmod(mode)
    os.utime(path, (time, time))
    return path


def replacement(files: Path, **more: str) -> dict[str, Any]:
    new = os.path.realpath(files / "new")
    return {"replace": [{"source": new, "target": str(files / "film")} | more]}


def new_of(files: Path) -> Path:
    return Path(os.path.realpath(files / "new"))


def state(path: Path) -> tuple[str, int, int, float]:
    found = path.stat()
    return path.read_text()[:1], found.st_size, stat.S_IMODE(found.st_mode), found.st_mtime


@pytest.mark.parametrize("more", [{}, {"if": "smaller"}, {"backup": "old/"}, {"if": "smaller", "backup": "kept"}])
def test_replace(more: dict[str, str], files: Path) -> None:
    """The new file is in the old one's place, with its mode and times; the backup is the old file as it was."""
    os.chown(files / "film", os.getuid(), os.getgid())
    if name := more.get("backup"):
        more = more | {"backup": f"{files}/{name}"}
    new, data = new_of(files), replacement(files, **more)
    outputs = Cleanup(data).outputs()
    module = carry_out(data)

    assert state(files / "film") == ("n", 500, 0o640, LONG_AGO)
    assert not new.exists()
    assert outputs[-1] == str(files / "film")
    assert [state(Path(path)) for path in outputs[:-1]] == [("f", 1000, 0o640, LONG_AGO)] * bool(name)
    assert list(module.sisyphus_context.warnings) == []
    assert list(files.rglob(".*")) == []


@pytest.mark.parametrize("size", [1000, 1001])
def test_not_smaller(size: int, files: Path) -> None:
    """A file that is not smaller is deleted, the old one stays, and the task is skipped, with the sizes."""
    new = write(new_of(files), size)
    with pytest.raises(Skipped, match=rf"{new} \({size} bytes, .*\) is not smaller than {files}/film \(1000 bytes"):
        carry_out(replacement(files, **{"if": "smaller", "backup": str(files / "kept")}))

    assert not new.exists()
    assert state(files / "film") == ("f", 1000, 0o640, LONG_AGO)
    assert not (files / "kept").exists()


def test_not_all_are_smaller(files: Path) -> None:
    """If something else was done, too, what was skipped is a warning."""
    write(files / "other", 10)
    write(files / "second", 20)
    data = replacement(files, **{"if": "smaller"})
    data["replace"].append({"source": str(files / "other"), "target": str(files / "second"), "if": "smaller"})
    write(new_of(files), 2000)
    module = carry_out(data)

    assert (state(files / "film")[:2], state(files / "second")[:2]) == (("f", 1000), ("o", 10))
    assert [line for line in module.sisyphus_context.warnings if line.startswith("skipped: ")]


def test_without_the_other_name(files: Path) -> None:
    """A link stays, and what it leads to is replaced. Other names of a file keep what they have, and this is told."""
    (files / "link").symlink_to("film")
    os.link(files / "film", files / "second")
    new = new_of(files)
    os.link(new, new.with_name("new 2"))
    data = replacement(files)
    data["replace"][0]["target"] = str(files / "link")
    module = carry_out(data)

    assert (files / "link").is_symlink()
    assert state(files / "film") == ("n", 500, 0o640, LONG_AGO)
    assert state(files / "second")[:2] == ("f", 1000)
    assert state(new.with_name("new 2")) == ("n", 500, 0o600, LONG_AGO + 1)
    assert any(
        "2 names (hard links): the others keep the old file" in line for line in module.sisyphus_context.warnings
    )


PREPARED = {
    "no target": ("rm film", r"replace[0].target: {files}/film: no such file: to put a file where there is none, use"),
    "no source": ("rm {new}", "replace[0].source: {new}: no such file"),
    "a link": ("mv {new} x; ln -s {files}/x {new}", "replace[0]: {new} is a link: name the file that it leads to"),
    "a directory": ("rm film; mkdir film", "replace[0]: {files}/film is a directory"),
    "a pipe": ("rm film; mkfifo film", "replace[0]: {files}/film is no regular file"),
    "the same file": ("rm film; ln -f {new} film 2>/dev/null || ln -sf {new} film", "are the same file"),
    "a backup that is there": ("echo x > kept", "replace[0].backup: {files}/kept: exists already"),
    "a backup that is the target": ("ln -s . kept", "replace[0].backup: {files}/kept/film is the same file as"),
}


@pytest.mark.parametrize("case", PREPARED)
def test_refused(case: str, files: Path) -> None:
    """What cannot be is told before anything runs, and an attempt that begins all the same changes nothing."""
    script, words = PREPARED[case]
    new, data = new_of(files), replacement(files, backup=str(files / "kept"))
    subprocess.run(["sh", "-ec", script.format(files=files, new=new)], cwd=files, check=True)
    before = sorted(os.listdir(files))

    found = problems(data)
    with pytest.raises(RunError):
        Cleanup(data).run()

    assert any(words.format(files=files, new=new) in line for line in found), found
    assert sorted(os.listdir(files)) == before


def test_empty_and_growing(files: Path) -> None:
    """An empty file, and one that is still being written, would be smaller: neither takes a film's place."""
    new = write(new_of(files), 0)
    with pytest.raises(RunError, match=f"{new} is empty"):
        Cleanup(replacement(files, **{"if": "smaller"})).run()
    with subprocess.Popen(["sh", "-c", f"while :; do echo x >> '{new}'; sleep 0.05; done"]) as writer:
        try:
            with select.epoll() as poll:
                while not new.stat().st_size:
                    poll.poll(0.01)
            with pytest.raises(RunError, match="was written to meanwhile"):
                Cleanup(replacement(files, **{"if": "smaller"})).run()
        finally:
            writer.kill()

    assert state(files / "film")[:2] == ("f", 1000)
    assert new.exists()


def test_full_disk(files: Path) -> None:
    """If the new file has no room beside the old one, both are as they were, and no backup is left."""
    new = write(new_of(files), 100_000, 0o600, LONG_AGO + 1)
    data = replacement(files, backup=str(files / "old/"))
    if new.parent == files:
        carry_out(data)  # a rename needs no room
        return
    with files_limited_to(50_000), pytest.raises(RunError, match="cannot be written: File too large"):
        Cleanup(data).run()

    assert (state(new), state(files / "film")) == (("n", 100_000, 0o600, LONG_AGO + 1), ("f", 1000, 0o640, LONG_AGO))
    assert [path.name for path in files.rglob("*") if path.is_file() and not path.is_symlink()] == ["film"]


def resumed(data: dict[str, Any], state: Any) -> Cleanup:
    """The next attempt after one that was killed when it had saved `state`."""
    module = Cleanup(data)
    module.resumed = True
    module.sisyphus_context.saved_state = state
    module.validate()
    return module


def keeping_state(module: Cleanup, file: Path) -> Cleanup:
    """A module that saves its state in a file, as the client would in its journal."""

    def save(state: Any) -> None:
        file.with_name("state.new").write_text(json.dumps(state))
        file.with_name("state.new").rename(file)

    module.save_state = save  # type: ignore[method-assign]
    return module


def test_killed_at_any_instant(files: Path) -> None:
    """Whenever it is killed, the target is the old file or the new one, and the other is not lost before that; the next
    attempt brings it to an end."""
    new, film, kept = new_of(files), files / "film", files / "kept"
    data = replacement(files, backup=str(kept))
    interrupted = 0
    for delay in range(30):
        write(film, 3_000_000, 0o640)
        write(new, 2_000_000, 0o600)
        child = os.fork()
        if not child:
            try:
                keeping_state(Cleanup(data), kept.with_name("state")).run()
            finally:
                os._exit(0)
        end = os.pidfd_open(child)
        with select.epoll() as poll:
            poll.register(end, select.EPOLLIN)
            poll.poll(delay / 5000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(end)

        assert film.read_bytes() in (b"f" * 3_000_000, b"n" * 2_000_000)
        if film.stat().st_size == 2_000_000:
            assert kept.read_bytes() == b"f" * 3_000_000
        else:
            assert new.read_bytes() == b"n" * 2_000_000
            interrupted += 1
        saved = kept.with_name("state")
        again = resumed(data, json.loads(saved.read_bytes()) if saved.exists() else None)
        again.run()
        again.cleanup()
        assert (film.read_bytes(), kept.read_bytes()) == (b"n" * 2_000_000, b"f" * 3_000_000)
        assert not new.exists()
        kept.unlink()
        saved.unlink(missing_ok=True)

    assert interrupted


@pytest.mark.parametrize("more", [{}, {"if": "smaller"}, {"backup": "old/"}])
def test_killed_between_copy_and_removal(more: dict[str, str], files: Path) -> None:
    """What is left to do is to remove the source: it is not compared with its own copy, nor is this kept as backup."""
    if "backup" in more:
        more = {"backup": f"{files}/old/"}
    new, data = new_of(files), replacement(files, **more)
    source = new.read_bytes()
    module = Cleanup(data)
    saved: list[Any] = []
    module.save_state = saved.append  # type: ignore[method-assign]
    module.run()
    new.write_bytes(source)
    resumed(data, saved[0]).run()

    assert state(files / "film") == ("n", 500, 0o640, LONG_AGO)
    assert not new.exists()
    assert [path.read_text()[:1] for path in files.glob("old/*")] == ["f"] * ("backup" in more)


@pytest.mark.parametrize("is_removed", [True, False])
def test_killed_after_one_that_is_not_smaller(is_removed: bool, files: Path) -> None:
    """The task is skipped by the next attempt, too: later tasks may be to remove what was to be replaced."""
    new, data = write(new_of(files), 1000), replacement(files, **{"if": "smaller"})
    module = Cleanup(data)
    saved: list[Any] = []
    module.save_state = saved.append  # type: ignore[method-assign]
    with pytest.raises(Skipped):
        module.run()
    for each in saved[1:] if is_removed else saved[1:2]:
        if not is_removed:
            write(new, 1000)
        with pytest.raises(Skipped, match=r"is not smaller than [^;]*$"):
            resumed(data, each).run()
    assert not new.exists()


def test_plan(files: Path) -> None:
    """The planned line does the same."""
    (line,) = Cleanup(replacement(files, **{"if": "smaller", "backup": f"{files}/old/"})).plan()
    subprocess.run(["sh", "-ec", line], check=True)

    assert state(files / "film")[:2] == ("n", 500)
    assert state(files / "film")[3] == LONG_AGO
    assert state(files / "old" / "film") == ("f", 1000, 0o640, LONG_AGO)
