"""The `cleanup` module, on real files and two real file systems."""

import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.cleanup import Cleanup
from modules.cleanup.copying import copy_bytes
from modules.output import Output
from tests.modules import steps
from tests.support.media import Interrupted, terminated_when

UNCOPYABLE = Path("/proc/filesystems")
"""A file that the kernel does not copy: it can only be read."""

ODD_NAMES = ["with space", "quote'\"", "new\nline", "-rf", "\udcff", "*", "$(x)"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """An empty directory of its own."""
    directory = tmp_path / "files"
    directory.mkdir()
    return directory


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system: /dev/shm is not there, or holds the tests' directory itself")
    with tempfile.TemporaryDirectory(dir=shared) as directory:
        yield Path(directory)


carry_out = partial(steps.carry_out, Cleanup)
refusal = partial(steps.refusal, Cleanup)


def transfer(source: object, destination: object) -> dict[str, str]:
    return {"source": str(source), "destination": str(destination)}


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_delete(slash: str, files: Path) -> None:
    """Files, links and empty directories are deleted, with a slash at the end too; what is not there is a warning."""
    for name in ("file", "kept"):
        (files / name).touch()
    for name in ("directory", "there"):
        (files / name).mkdir()
    (files / "link").symlink_to("there")
    data = {"delete": [f"{files}/{name}{slash}" for name in ("file", "directory", "link", "none", "kept/x")]}
    plan = Cleanup(data).plan()

    module = carry_out(data)

    assert names(files) == ["kept", "there"]
    assert plan[:3] == [f"rm -- {files}/file", f"rmdir -- {files}/directory", f"rm -- {files}/link"]
    assert list(module.sisyphus_context.warnings) == [
        f"{files}/{name}{slash} is not there to delete" for name in ("none", "kept/x")
    ]
    assert module.sisyphus_context.status["progress"] == 100


@pytest.mark.parametrize("verb", ["delete", "copy", "move", "replace"])
def test_nothing_to_do(verb: str, files: Path) -> None:
    """An empty list, as scripts write one, is done: the task is not skipped, for then the later ones would be, too."""
    carry_out({verb: []})


def test_failed_move(files: Path) -> None:
    """A directory that cannot replace a file keeps its own mode."""
    (files / "directory").mkdir(mode=0o755)
    (files / "file").touch(mode=0o604)
    with pytest.raises(RunError, match="Not a directory"):
        carry_out({"move": [transfer(files / "directory", files / "file")]})

    assert stat.S_IMODE((files / "directory").stat().st_mode) == 0o755


def test_copy(files: Path) -> None:
    """A copy has the content, the mode and the time of its source. A file that it replaces keeps its own mode."""
    source = files / "a"
    source.write_bytes(os.urandom(9 << 20))
    source.chmod(0o640)
    os.utime(source, (1, 1_234_567_890))
    (files / "old").write_text("old")
    (files / "old").chmod(0o604)

    module = carry_out({"copy": [transfer(source, files / "b"), transfer(source, files / "old")]})

    for name, mode in (("b", 0o640), ("old", 0o604)):
        assert (files / name).read_bytes() == source.read_bytes()
        assert stat.S_IMODE((files / name).stat().st_mode) == mode
        assert (files / name).stat().st_mtime == 1_234_567_890
    assert names(files) == ["a", "b", "old"]
    info = dict(module.sisyphus_context.status["info"])
    assert info.pop("bytes_per_second") > 0
    assert info == {
        "phase": "copying",
        "current_file": str(source),
        "bytes_total": 18 << 20,
        "bytes_done": 18 << 20,
        "eta_seconds": 0,
    }


@pytest.mark.parametrize("destination", ["new/deep/", "new/deep/a", "there", "there/", "there/a"])
@pytest.mark.parametrize("verb", ["copy", "move"])
def test_destinations(verb: str, destination: str, files: Path) -> None:
    """A destination is a file or a directory, which is made if it is not there."""
    (files / "there").mkdir()
    (files / "a").write_text("x")
    data = {verb: [transfer(files / "a", f"{files}/{destination}")]}

    module = carry_out(data)

    (written,) = Cleanup(data).outputs() if destination != "there" else [str(files / "there" / "a")]
    assert Path(written).read_text() == "x"
    assert module.removes() == ([str(files / "a")] if verb == "move" else [])
    assert (files / "a").exists() == (verb == "copy")


def test_move_elsewhere(files: Path, elsewhere: Path) -> None:
    """A move to another file system takes content, mode and time along, and then the source away."""
    source = files / "a"
    data = os.urandom(5 << 20)
    source.write_bytes(data)
    source.chmod(0o600)
    os.utime(source, (1, 1_234_567_890))

    module = carry_out({"move": [transfer(source, elsewhere / "new" / "b")]})

    moved = elsewhere / "new" / "b"
    assert moved.read_bytes() == data
    assert (moved.stat().st_mtime, stat.S_IMODE(moved.stat().st_mode)) == (1_234_567_890, 0o600)
    assert names(files) == []
    assert names(elsewhere) == ["new", "new/b"]
    assert module.sisyphus_context.status["info"]["bytes_done"] == len(data)


def test_every_way_to_copy(files: Path, elsewhere: Path) -> None:
    """All bytes are copied and told of, within a file system, to another, and where the kernel can only read."""
    (files / "a").write_bytes(os.urandom((9 << 20) + 1))
    for source, target in [(files / "a", files / "b"), (files / "a", elsewhere / "b"), (UNCOPYABLE, files / "c")]:
        told: list[int] = []
        with open(source, "rb") as old, open(target, "wb", buffering=0) as new:
            copy_bytes(old.fileno(), new.fileno(), told.append)

        assert target.read_bytes() == source.read_bytes()
        assert sum(told) == target.stat().st_size


@pytest.mark.parametrize("ends", ["data", "hole"])
def test_media_holes(ends: str, files: Path, elsewhere: Path) -> None:
    """A copy and a move to another file system keep a file's holes, and every byte between them."""
    sparse = files / "sparse"
    with sparse.open("wb") as file:
        for place, size in ((0, 5000), (9 << 20, 5 << 20), (30 << 20, 1)):
            file.seek(place)
            file.write(os.urandom(size))
        file.truncate((30 << 20) + 1 if ends == "data" else 40 << 20)
    whole, blocks = sparse.read_bytes(), sparse.stat().st_blocks

    carry_out({"copy": [transfer(sparse, files / "copy")], "move": [transfer(sparse, elsewhere / "moved")]})

    for copied in (files / "copy", elsewhere / "moved"):
        assert copied.read_bytes() == whole
        assert copied.stat().st_blocks <= blocks + 64
    assert not sparse.exists()


def test_links(files: Path, elsewhere: Path) -> None:
    """A copy follows a link; a move moves it, to another file system too."""
    (files / "real").write_text("x")
    for name in ("one", "two", "three"):
        (files / name).symlink_to("real")

    carry_out(
        {
            "copy": [transfer(files / "one", files / "copied")],
            "move": [transfer(files / "two", files / "near"), transfer(files / "three", elsewhere / "far")],
        }
    )

    assert (files / "copied").read_text() == "x"
    assert not (files / "copied").is_symlink()
    assert os.readlink(files / "near") == os.readlink(elsewhere / "far") == "real"
    assert names(files) == ["copied", "near", "one", "real"]


def test_interrupted_move(files: Path, elsewhere: Path) -> None:
    """A move that is asked to stop leaves the source whole and no half file; the old file stays."""
    source, target = files / "a", elsewhere / "b"
    with open(source, "wb") as file:
        file.truncate(3 << 30)
    target.write_text("old")
    temporary = Output(str(target)).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Cleanup({"move": [transfer(source, target)]}).run()

    assert source.stat().st_size == 3 << 30
    assert names(elsewhere) == ["b"]
    assert target.read_text() == "old"


RESUMED = {
    "copy, then delete": {"copy": [("a", "b")], "delete": ["a"]},
    "copy, then move": {"copy": [("a", "b")], "move": [("a", "c")]},
    "chain": {"move": [("a", "b")], "copy": [("b", "c")], "delete": ["b"]},
    "many deletions": {"copy": [("a", "b")], "delete": ["a", "f", "new"]},
    "rotation": {"move": [("f", "f.bak"), ("new", "f")]},
}


@pytest.mark.parametrize("actions", RESUMED.values(), ids=RESUMED)
def test_resumed_after_each_action(actions: dict[str, Any], tmp_path: Path) -> None:
    """Whichever action was the last that an earlier attempt has done, and saved or not, the end is that of one whole
    attempt."""

    def files(name: str) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        for file in ("a", "f", "new"):
            (directory / file).write_text(f"was {file}")
        return directory

    def data(directory: Path, most: int) -> dict[str, Any]:
        steps = [(verb, entry) for verb, entries in actions.items() for entry in entries][:most]
        return {
            verb: [
                f"{directory}/{entry}" if verb == "delete" else transfer(directory / entry[0], directory / entry[1])
                for kind, entry in steps
                if kind == verb
            ]
            for verb in dict.fromkeys(kind for kind, _ in steps)
        }

    def found(directory: Path) -> dict[str, str]:
        return {file.name: file.read_text() for file in directory.iterdir()}

    count = sum(map(len, actions.values()))
    whole = files("whole")
    carry_out(data(whole, count))
    ends = []
    deletions = count - len(actions.get("delete", ()))  # of a row of them, none is saved but the last
    attempts = [(done, saved) for done in range(count + 1) for saved in {done, max(0, done - 1), min(done, deletions)}]
    for done, saved in attempts:
        directory = files(f"after {done}, saved {saved}")
        if done:
            carry_out(data(directory, done))
        again = Cleanup(data(directory, count))
        again.resumed = True
        again.sisyphus_context.saved_state = {"done": saved}
        again.validate()
        again.run()
        ends.append(found(directory))

    assert ends == [found(whole)] * len(attempts)


@pytest.mark.parametrize("verb", ["copy", "move"])
def test_target_is_no_file(verb: str, files: Path, elsewhere: Path) -> None:
    """A device or a pipe at the destination is not replaced, behind a link neither."""
    os.mkfifo(files / "pipe")
    (files / "link").symlink_to("/dev/null")
    (files / "a").write_text("x")
    (elsewhere / "a").write_text("x")
    for source, target in ((files, "pipe"), (elsewhere, "pipe"), (files, "link")):
        with pytest.raises(RunError, match=f"{files}/{target} is no regular file"):
            Cleanup({verb: [transfer(source / "a", files / target)]}).run()

    assert (files / "pipe").is_fifo()
    assert names(files) == ["a", "link", "pipe"]


def test_link_beside_another_client(files: Path, elsewhere: Path) -> None:
    """A link is moved under the target's lock, and what a killed process left of another is replaced."""
    (files / "link").symlink_to("new")
    data = {"move": [transfer(files / "link", elsewhere / "b")]}
    with Output(str(elsewhere / "b")), pytest.raises(RunError, match="another task is writing it"):
        Cleanup(data).run()
    temporary = Output(str(elsewhere / "b")).temporary
    Path(temporary).touch()
    (elsewhere / f".{os.path.basename(temporary)}").symlink_to("old")

    Cleanup(data).cleanup()
    assert names(elsewhere) == []
    Cleanup(data).run()
    assert os.readlink(elsewhere / "b") == "new"
    assert names(elsewhere) == ["b"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd names work, relative ones too, here and in the planned command lines."""
    monkeypatch.chdir(files)
    Path(name).write_text("x")
    data = {"copy": [transfer(name, name + "2")], "move": [transfer(name, "done/")], "delete": [name + "2"]}
    plan = Cleanup(data).plan()

    carry_out(data)

    assert os.listdir("done") == [name]
    assert os.listdir() == ["done"]
    assert [shlex.split(line) for line in plan] == [
        ["cp", "--", name, name + "2"],
        ["mkdir", "-p", "--", "done"],
        ["mv", "--", name, f"done/{name}"],
        ["rm", "--", name + "2"],
    ]


def test_odd_name_on_the_heartbeat(files: Path) -> None:
    """The name in the status is text that can be sent."""
    source = files / "a\udcff"
    source.write_text("x")

    module = carry_out({"copy": [transfer(source, files / "b")]})

    assert module.sisyphus_context.status["info"]["current_file"] == f"{files}/a\\udcff"


def test_cleanup_of_a_killed_run(files: Path) -> None:
    """A fresh instance removes what a killed process of the same job left, and nothing more."""
    Path(Output(str(files / "b")).temporary).touch()
    (files / "b").touch()

    Cleanup({"copy": [transfer(files / "a", files / "b")]}).cleanup()

    assert names(files) == ["b"]


def test_room_for_copies(files: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy needs room, by the limit; a rename, and a deletion before it, none."""
    monkeypatch.setattr("modules.context.current.free_space", (0.0, 1 << 60))
    (files / "a").write_text("x")
    carry_out({"move": [transfer(files / "a", files / "b")]})
    with pytest.raises(RunError, match=f"cannot copy {files}/b to {elsewhere}/b: .* must be for the output"):
        carry_out({"copy": [transfer(files / "b", elsewhere / "b")]})

    assert names(elsewhere) == []
