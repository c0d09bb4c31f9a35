"""The `cleanup` module, on real files and two real file systems."""

import os
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, ValidationError
from modules.base import location
from modules.cleanup import Cleanup
from modules.output import Output
from tests.support import steps
from tests.support.media import Interrupted, terminated_when

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


def test_delete(files: Path) -> None:
    """Files, links and empty directories are deleted; what is not there is a warning."""
    (files / "file").touch()
    (files / "directory").mkdir()
    (files / "kept").touch()
    (files / "link").symlink_to("kept")

    module = carry_out({"delete": [str(files / name) for name in ("file", "directory", "link", "none", "file/x")]})

    assert names(files) == ["kept"]
    assert list(module.sisyphus_context.warnings) == [
        f"{files}/{name} is not there to delete" for name in ("none", "file/x")
    ]
    assert module.sisyphus_context.status["progress"] == 100


def test_delete_with_slash(files: Path) -> None:
    """A slash at the end changes nothing: a link, a file or an empty directory is deleted."""
    for name in ("file", "kept"):
        (files / name).touch()
    (files / "directory").mkdir()
    (files / "there").mkdir()
    (files / "link").symlink_to("there")
    data = {"delete": [f"{files}/{name}/" for name in ("file", "directory", "link")]}
    plan = Cleanup(data).plan()

    carry_out(data)

    assert names(files) == ["kept", "there"]
    assert plan == [f"rm -- {files}/file", f"rmdir -- {files}/directory", f"rm -- {files}/link"]


def test_delete_full_directory(files: Path) -> None:
    """A directory with something in it is not deleted, and the error names it."""
    (files / "directory").mkdir()
    (files / "directory" / "file").touch()
    with pytest.raises(RunError, match=f"cannot delete {files}/directory: Directory not empty"):
        carry_out({"delete": [str(files / "directory")]})

    assert names(files) == ["directory", "directory/file"]


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


def test_move(files: Path) -> None:
    """Within a file system a move is a rename, and replaces what was there."""
    (files / "a").write_text("new")
    (files / "b").write_text("old")
    number = (files / "a").stat().st_ino

    carry_out({"move": [transfer(files / "a", files / "b")]})

    assert names(files) == ["b"]
    assert (files / "b").stat().st_ino == number


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


def test_no_room(files: Path, elsewhere: Path) -> None:
    """A copy that cannot be written whole is an error with the reason; the source stays, and no half file."""
    source = files / "a"
    source.write_bytes(bytes(1 << 20))
    script = "ulimit -f 100; trap '' XFSZ; exec \"$@\""  # files of at most 50 KiB, without the signal
    code = "import sys; from modules.cleanup import Cleanup; Cleanup({'move': [dict(source=sys.argv[1], "
    code += "destination=sys.argv[2])]}).run()"

    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", code, str(source), str(elsewhere / "b")],
        capture_output=True,
        text=True,
        check=False,
    )

    said = f"cannot move {source} to {elsewhere}/b: {elsewhere}/b: cannot be written: File too large"
    assert said in done.stderr
    assert source.stat().st_size == 1 << 20
    assert names(elsewhere) == []


def test_order(files: Path) -> None:
    """The three are carried out in the order in which they stand."""
    (files / "a").write_text("x")

    carry_out(
        {
            "move": [transfer(files / "a", files / "b")],
            "copy": [transfer(files / "b", files / "c")],
            "delete": [str(files / "b")],
        }
    )

    assert names(files) == ["c"]


def test_resumed_move(files: Path) -> None:
    """On a resumed attempt, a move that was done before counts as done, with a warning."""
    (files / "done").mkdir()
    (files / "done" / "a").write_text("x")
    module = Cleanup({"move": [transfer(files / "a", f"{files}/done/")]})
    module.resumed = True

    module.validate()
    module.run()

    assert list(module.sisyphus_context.warnings) == [
        f"move {files}/a to {files}/done/a: taken for done by an earlier attempt"
    ]
    assert (files / "done" / "a").read_text() == "x"


RESUMED = {
    "copy, then delete": {"copy": [("a", "b")], "delete": ["a"]},
    "copy, then move": {"copy": [("a", "b")], "move": [("a", "c")]},
    "chain": {"move": [("a", "b")], "copy": [("b", "c")], "delete": ["b"]},
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
    attempts = [(done, saved) for done in range(count + 1) for saved in (done, done - 1) if saved >= 0]
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


def test_move_of_nothing_is_no_success(files: Path) -> None:
    """On a first attempt, an old file at the destination does not stand in for a source that is not there."""
    (files / "old").write_text("x")
    module = Cleanup({"move": [transfer(files / "a", files / "old")]})

    with pytest.raises(ValidationError, match="no such file"):
        module.validate()
    with pytest.raises(RunError, match="cannot move"):
        module.run()
    assert (files / "old").read_text() == "x"


@pytest.mark.parametrize("verb", ["copy", "move"])
def test_same_file(verb: str, files: Path) -> None:
    """A file that is its own destination is refused, before and during the run: what deletes it next would lose it."""
    (files / "a").write_text("x")
    module = Cleanup({verb: [transfer(files / "a", files / "." / "a"), transfer(files / "a", f"{files}/")]})

    with pytest.raises(ValidationError, match="are the same file"):
        module.validate()
    with pytest.raises(RunError, match="are the same file"):
        module.run()
    assert (files / "a").read_text() == "x"


def test_move_between_hard_links(files: Path) -> None:
    """A move between two names of one file takes the first away, which rename(2) would not."""
    (files / "a").write_text("x")
    os.link(files / "a", files / "b")

    carry_out({"move": [transfer(files / "a", files / "b")]})

    assert names(files) == ["b"]


def test_directories(files: Path, elsewhere: Path) -> None:
    """A directory can be moved within its file system; copying it, or moving it elsewhere, is a clear error."""
    (files / "one").mkdir()
    (files / "one" / "file").touch()
    carry_out({"move": [transfer(files / "one", files / "two")]})
    for data in (
        {"copy": [transfer(files / "two", files / "x")]},
        {"move": [transfer(files / "two", elsewhere / "x")]},
    ):
        with pytest.raises(RunError, match=f"{files}/two is a directory"):
            Cleanup(data).run()

    assert names(files) == ["two", "two/file"]
    assert names(elsewhere) == []


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


def test_replaced_file(files: Path) -> None:
    """That a file was replaced is on the record, unless an earlier attempt had copied it."""
    for name in "abcd":
        (files / name).write_text(name)
    data = {"copy": [transfer(files / "a", files / "b")], "move": [transfer(files / "c", files / "d")]}

    module = carry_out(data)

    assert list(module.sisyphus_context.warnings) == [
        f"{files}/b was there already: copy {files}/a replaces it",
        f"{files}/d was there already: move {files}/c replaces it",
    ]
    again = Cleanup(data)
    again.resumed = True
    again.sisyphus_context.saved_state = module.load_state()
    again.run()
    assert list(again.sisyphus_context.warnings) == [
        f"copy {files}/a to {files}/b: taken for done by an earlier attempt",
        f"move {files}/c to {files}/d: taken for done by an earlier attempt",
    ]


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


def test_pipe(files: Path) -> None:
    """A named pipe is not copied, nor waited for."""
    os.mkfifo(files / "pipe")
    with pytest.raises(RunError, match="is no regular file"):
        carry_out({"copy": [transfer(files / "pipe", files / "x")]})

    assert names(files) == ["pipe"]


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


def test_empty_file(files: Path) -> None:
    """An empty file is copied too."""
    (files / "a").touch()

    carry_out({"copy": [transfer(files / "a", files / "b")]})

    assert (files / "b").stat().st_size == 0


def test_failure_midway(files: Path) -> None:
    """The error names the action that failed; what was done before stays done."""
    (files / "a").write_text("x")
    (files / "file").touch()
    data = {"copy": [transfer(files / "a", files / "b"), transfer(files / "a", files / "file" / "c")]}
    with pytest.raises(RunError, match=f"cannot copy {files}/a to {files}/file/c: "):
        Cleanup(data).run()

    assert names(files) == ["a", "b", "file"]


def test_cleanup_of_a_killed_run(files: Path) -> None:
    """A fresh instance removes what a killed process of the same job left, and nothing more."""
    Path(Output(str(files / "b")).temporary).touch()
    (files / "b").touch()

    Cleanup({"copy": [transfer(files / "a", files / "b")]}).cleanup()

    assert names(files) == ["b"]


def test_what_cannot_be_done(files: Path) -> None:
    """What can be seen to fail is told before the job: copies of directories, targets that cannot be."""
    (files / "directory").mkdir()
    (files / "file").touch()
    os.mkfifo(files / "pipe")
    data = {
        "copy": [
            transfer(files / "directory", files / "b"),
            transfer(files / "file", files / "pipe"),
            transfer(files / "file", files / "file" / "x" / "c"),
        ]
    }

    assert refusal(data).split("; ") == [
        f"copy[0].source: {files}/directory: is a directory, of which no copy is made",
        f"{files}/pipe: is no regular file (a device or a pipe): it is not replaced",
        f"{files}/file/x/c: {files}/file is no directory",
    ]


def test_what_earlier_actions_make_possible(files: Path) -> None:
    """A pipe or a file in the way is none, if it is deleted first."""
    (files / "a").write_text("x")
    (files / "file").touch()
    os.mkfifo(files / "pipe")

    carry_out(
        {
            "delete": [str(files / "pipe"), str(files / "file")],
            "copy": [transfer(files / "a", files / "pipe"), transfer(files / "a", files / "file" / "c")],
        }
    )

    assert names(files) == ["a", "file", "file/c", "pipe"]


def test_room_for_copies(files: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy needs room, by the limit; a rename, and a deletion before it, none."""
    monkeypatch.setattr("modules.context.current.free_space", (0.0, 1 << 60))
    (files / "a").write_text("x")
    carry_out({"move": [transfer(files / "a", files / "b")]})
    with pytest.raises(RunError, match=f"cannot copy {files}/b to {elsewhere}/b: .* must be for the output"):
        carry_out({"copy": [transfer(files / "b", elsewhere / "b")]})

    assert names(elsewhere) == []


def test_missing_sources(files: Path) -> None:
    """Sources that will not be there are all reported, and what the actions before do is considered."""
    (files / "a").touch()
    data = {
        "delete": [str(files / "a"), str(files / "never")],
        "copy": [transfer(files / "a", files / "b"), transfer(files / "none", files / "c")],
        "move": [transfer(files / "b", files / "d")],
    }

    assert refusal(data) == (f"copy[0].source: {files}/a: no such file; copy[1].source: {files}/none: no such file")


def test_doubled_targets(files: Path) -> None:
    """Two files that would get one name are a problem, unless the first has been taken away by then."""
    for name in "abc":
        (files / name).touch()
    copies = [transfer(files / "a", f"{files}/done/x"), transfer(files / "b", f"{files}/done/x")]
    chain = {"copy": copies[:1], "move": [transfer(f"{files}/done/x", files / "y"), copies[1]]}

    assert refusal({"move": copies}) == f"move[1].destination: {files}/done/x is written by move[0] already"
    assert refusal({"copy": copies[:1], "move": copies[1:]}).endswith("done/x is written by copy[0] already")
    Cleanup(chain).validate()
    same = {"copy": copies[:1], "move": [transfer(files / "b", files / "a"), copies[0]]}
    assert refusal(same) == f"move[1].destination: {files}/done/x is written by copy[0] already"
    Cleanup({"copy": copies[:1], "move": copies[:1]}).validate()


def test_files_of_earlier_tasks(files: Path) -> None:
    """A source that an earlier task of the job writes need not be there yet."""
    module = Cleanup({"move": [transfer(files / "soon", files / "b")]})
    module.sisyphus_context.files = {location(str(files / "soon")): True}

    module.validate()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "expected 'delete', 'copy' or 'move'"),
        ({"delete": "a"}, 'delete: expected a list, got "a"'),
        ({"delete": [""]}, "delete[0]: expected a string that is not empty"),
        ({"delete": ["a\0"]}, 'delete[0]: expected text without NUL and lone surrogates, got "a\\u0000"'),
        ({"copy": [{"source": "a"}]}, "copy[0]: missing key 'destination'"),
        (
            {"move": [{"source": "a", "destinaton": "b", "destination": "b"}]},
            "move[0].destinaton: unknown key (did you mean 'destination'?)",
        ),
        ({"remove": []}, "remove: unknown key (did you mean 'move'?)"),
    ],
)
def test_bad_data(data: dict[str, Any], problem: str) -> None:
    """Data that is not as it should be is a ValidationError that says where."""
    assert problem in refusal(data)
