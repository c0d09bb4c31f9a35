"""Scratch directories: they go with their supervisor, or at the next start."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.isolation import scratch
from tests.support.supervised import Supervised, job
from tests.support.waiting import until


def test_scratch_directories_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor's scratch directory goes with it; one that a killed supervisor left goes at the next start.

    So does one that it had not marked yet, which is empty. What is not marked and holds something is somebody else's.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stale = tmp_path / f"{scratch.PREFIX}stale"
    (stale / "task" / "deep").mkdir(parents=True)
    (stale / scratch.MARK).touch()
    other = tmp_path / f"{scratch.PREFIX}of-somebody-else"
    other.mkdir()
    (other / "file").touch()
    unmarked = tmp_path / f"{scratch.PREFIX}unmarked"
    unmarked.mkdir()
    (stale / "task" / "deep").chmod(0)

    with contextlib.closing(scratch.Scratch()) as first, contextlib.closing(scratch.Scratch()) as second:
        assert not stale.exists()
        assert not unmarked.exists()
        assert first.make(0).exists()
        assert second.make(0).exists()
    assert list(tmp_path.iterdir()) == [other]


def make_deep(directory: Path) -> None:
    """A tree deeper than recursion goes, and than a path is long."""
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("long", dir_fd=descriptor)
        above, descriptor = descriptor, os.open("long", os.O_RDONLY, dir_fd=descriptor)
        os.close(above)
    os.close(descriptor)


def make_loop(directory: Path) -> None:
    directory.rmdir()
    directory.symlink_to(directory)


def make_link(directory: Path) -> None:
    directory.rmdir()
    directory.symlink_to(directory.parent / "outside")


@pytest.mark.parametrize("make", [make_deep, make_loop, make_link])
def test_whatever_has_become_of_it_is_removed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A module may make it too deep for most programs, or put a link in its place, which is not followed."""
    directory, outside = tmp_path / "scratch", tmp_path / "outside"
    directory.mkdir()
    (outside / "inner").mkdir(mode=0o755, parents=True)
    make(directory)

    scratch.remove(directory)
    until(lambda: list(tmp_path.iterdir()) == [outside], "it to be removed")

    assert (outside / "inner").stat().st_mode & 0o777 == 0o755


def test_a_long_removal_holds_up_nothing(tmp_path: Path) -> None:
    """It goes on beside the work; the end of the client does not wait for it, and the next start goes on with it."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    make_deep(directory)
    code = "import pathlib; from supervisor.isolation import scratch; scratch.PATIENCE = 0; scratch.remove(pathlib."
    subprocess.run([sys.executable, "-c", f"{code}{directory!r})"], check=True)
    is_left = directory.exists()
    scratch.remove(directory)
    until(lambda: not directory.exists(), "it to be removed")

    assert is_left


NOBODY = os.getuid() or 65534
"""A user whom permissions bind."""


def remove_as_nobody(directory: Path) -> None:
    os.setuid(NOBODY)
    scratch.remove(directory)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A directory without permissions is removed with the links in it; where they lead, nothing changes."""
    outside, directory = tmp_path / "outside", tmp_path / "scratch"
    (directory / "locked").mkdir(parents=True)
    outside.mkdir(mode=0o755)
    (outside / "file").touch()
    (directory / "locked" / "link").symlink_to(outside)
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(0o711)  # pytest's directories are for their user alone
    for path in (tmp_path, outside, directory, directory / "locked"):
        os.chown(path, NOBODY, -1)
    (directory / "locked").chmod(0)
    remover = multiprocessing.get_context("fork").Process(target=remove_as_nobody, args=(directory,))
    remover.start()
    remover.join()

    assert not directory.exists()
    assert outside.stat().st_mode & 0o777 == 0o755
    assert (outside / "file").exists()


def test_mounts_are_not_entered(tmp_path: Path) -> None:
    """What a module has mounted in its directory is somebody else's: the directory stays."""
    media, directory = tmp_path / "media", tmp_path / "a scratch \\ directory"
    for path in (media, directory / "film"):
        path.mkdir(parents=True)
    (media / "film.mkv").touch()
    if subprocess.run(["mount", "--bind", str(media), str(directory / "film")], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    scratch.remove(directory)
    kept = (media / "film.mkv").exists()
    subprocess.run(["umount", str(directory / "film")], check=True)
    scratch.remove(directory)

    assert kept
    assert not directory.exists()


def test_a_long_path_is_none_to_sockets(supervised: Supervised, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a TMPDIR of 70 characters, `multiprocessing` can make its sockets in a task, whose paths end at 107."""
    supervised.configure(modules={"sharing": "tests.support.modules.Sharing"})
    short = tmp_path_factory.mktemp("t", numbered=False)
    place = short / ("x" * (69 - len(str(short))))
    place.mkdir()
    done = supervised.run(job(("sharing", {})), env=os.environ | {"TMPDIR": str(place)})

    assert len(str(place)) == 70
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir())
    assert not [link for link in Path("/tmp").glob(f"{scratch.LINK_PREFIX}*") if str(place) in str(link.resolve())]
