"""Never lost: no only name of a file goes, what is replaced keeps its attributes, nothing done is done again."""

import os
import struct
from pathlib import Path

import pytest

from tests.cases.checks import Check, completes, refused, stopped, told
from tests.cases.client import Client, Services, namespace, odd
from tests.cases.tasks import COPY, Task, cleanup, ffmpeg, handbrake, job, mkvextract, mkvmerge
from tests.support.waiting import until

pytestmark = pytest.mark.tools

SAME = "same file"
PATTERN = ("wildcard", "pattern")
KEPT = told(SAME, changed=())  # nothing to do, or refused as by mv(1): the file is there

# --- one file by two names ---

REAL = "mkdir real; ln -s real alias; cp s.srt real/f; cp clip.mkv real/f.mkv"
LINKED = "mkdir a b; cp s.srt a/f; ln a/f b/f"
POINTED = "cp s.srt f; ln -s f link"

FILES: dict[str, tuple[str, list[Task], Check]] = {
    "move by a linked directory": (REAL, [cleanup(move=[("real/f", "alias/")])], KEPT),
    "move back by it": (REAL, [cleanup(move=[("alias/f", "real/")])], KEPT),
    "move, spelled otherwise": (REAL, [cleanup(move=[("real/f", "real/../real/")])], KEPT),
    "copy and delete, by dots": (REAL, [cleanup(copy=[("real/f", "./real//f")], delete=["real/f"])], refused(SAME)),
    "delete the other name": (REAL, [cleanup(copy=[("real/f", "alias/f")], delete=["alias/f"])], refused(SAME)),
    "in two tasks": (REAL, [cleanup(copy=[("real/f", "alias/")]), cleanup(delete=["real/f"])], refused(SAME)),
    "move away": (REAL, [cleanup(copy=[("real/f", "alias/")], move=[("real/f", "new")])], told(SAME)),
    "copy onto a link to it, and delete": (POINTED, [cleanup(copy=[("f", "link")], delete=["f"])], refused(SAME)),
    "move a link onto what it leads to": (POINTED, [cleanup(move=[("link", "f")])], stopped(SAME)),
    "delete, then copy": (REAL, [cleanup(delete=["real/f"], copy=[("alias/f", "x")])], refused("alias/f")),
    "move a link, and delete": (
        POINTED,
        [cleanup(move=[("link", "l")], delete=["f"])],
        stopped("l", changed=["link", "l"]),
    ),
    "move a link from its file": (
        f"{POINTED}; mkdir d",
        [cleanup(move=[("link", "d/")])],
        completes("d/link", "leads to no file", changed=["link", "d/link"]),
    ),
    "move a link and its file": (
        f"{POINTED}; mkdir d",
        [cleanup(move=[("link", "d/"), ("f", "d/")])],
        completes(changed=["link", "f", "d/link", "d/f"]),
    ),
    "move a directory into itself": ("mkdir d", [cleanup(move=[("d", "d/e")])], refused("d/e", "inside")),
    "attach a link that leads nowhere": (
        "mkdir fonts; ln -s none fonts/a.ttf; echo font >fonts/b.ttf",
        [mkvmerge("clip.mkv", attachment_directories=["fonts"])],
        completes("fonts/a.ttf", "nothing to attach"),
    ),
    "attach what is in the output's directory": (
        "mkdir d; cp font.ttf d; cp clip.mkv d/o.mkv; : >d/.o.dead.sisyphus-part.mkv",
        [mkvmerge("clip.mkv", target="d/o.mkv", attachment_directories=["d"])],
        completes(
            "d/o.mkv was there already",
            changed=["d/o.mkv", "d/.o.dead.sisyphus-part.mkv"],
            holds={"d/o.mkv": ["video", "attachment"]},
        ),
    ),
    "move to a name that is too long": (REAL, [cleanup(move=[("real/f", f"new/{256 * 'x'}")])], refused("too long")),
    "encode to it in the end": (
        REAL,
        [mkvmerge("clip.mkv"), ffmpeg("out.mkv", 63 * "🎬" + ".mkv")],
        refused("too long"),
    ),
    # Of two hard links one may go, as with mv(1) and rm(1): the file has another name.
    "move onto a hard link": (LINKED, [cleanup(move=[("a/f", "b/f")])], completes(changed=["a/f"])),
    "copy and delete": (LINKED, [cleanup(copy=[("a/f", "b/f")], delete=["a/f"])], completes(SAME, changed=["a/f"])),
    "rotation": ("echo 1 >a; echo 2 >b; echo 3 >c", [cleanup(move=[("b", "c"), ("a", "b")])], completes(changed="abc")),
    "one target twice": ("echo 1 >a; echo 2 >b", [cleanup(move=[("a", "c"), ("b", "c")])], refused("move[1]", "c")),
    "one target twice, and one of them moved on": (
        "echo 1 >a; echo 2 >b",
        [cleanup(copy=[("a", "d/x")], move=[("d/x", "y"), ("b", "d/x")])],
        completes(changed=["y", "b", "d/x"]),
    ),
    "one target twice, from one name": (
        "echo 1 >a; echo 2 >b",
        [cleanup(copy=[("a", "x")], move=[("b", "a"), ("a", "x")])],
        refused("move[1].destination: x is written by copy[0] already"),
    ),
    "what earlier actions take away": (
        "",
        [cleanup(delete=["s.srt", "never"], copy=[("s.srt", "b"), ("none", "c")], move=[("b", "d")])],
        refused("copy[0].source: s.srt: no such file", "copy[1].source: none: no such file"),
    ),
    "what earlier actions make possible": (
        "mkfifo p; : >f",
        [cleanup(delete=["p", "f"], copy=[("s.srt", "p"), ("s.srt", "f/c")])],
        completes(changed=["p", "f", "f/c"]),
    ),
    "a pipe as the target": ("mkfifo p", [cleanup(copy=[("s.srt", "p")])], refused("p: is no regular file")),
    "a file for a directory": ("", [cleanup(copy=[("clip.mkv", "s.srt/x/c")])], refused("s.srt is no directory")),
    "a failure midway": (
        "",
        [cleanup(copy=[("s.srt", "f")]), cleanup(copy=[("s.srt", "b"), ("s.srt", "f/c")])],
        stopped("cannot copy s.srt to f/c", changed=["f", "b"]),
    ),
    "a directory": ("mkdir d; : >d/f", [cleanup(move=[("d", "e")])], completes(changed=["d/f", "e/f"])),
    "an empty file": (": >e", [cleanup(copy=[("e", "f")])], completes(changed=["f"])),
    "a link to nothing": ("ln -s none l.mkv", [ffmpeg("l.mkv")], refused("l.mkv: is a link to none, and there is no")),
    "a target that a task before moves away": (
        "",
        [cleanup(move=[("clip.mkv", "in.mkv")]), ffmpeg("in.mkv", "clip.mkv")],
        completes(changed=["in.mkv", "clip.mkv"]),
    ),
    "wildcard": ("cp s.srt part1.ts", [cleanup(delete=["part*.ts"])], stopped("part*.ts", PATTERN)),
    "wildcard of a letter": ("cp s.srt a1", [cleanup(delete=["a?"])], stopped("a?", PATTERN)),
    "wildcard in a directory": (REAL, [cleanup(delete=["real/*"])], stopped("real/*", PATTERN)),
    "a name with brackets": ("cp s.srt '[a] *b?'", [cleanup(delete=["[a] *b?"])], completes(changed=["[a] *b?"])),
    "brackets, gone": ("", [cleanup(delete=["[Group] film.mkv"])], completes("[Group]", changed=[])),
    "attach the output": (
        "",
        [mkvmerge(target="s.srt", attachments=[{"filename": "s.srt"}])],
        refused("attachments[0]"),
    ),
    "what a task before has made": (
        "",
        [cleanup(copy=[("s.srt", "new/f")]), cleanup(move=[("new/f", "new/../new/")])],
        stopped("cannot move", SAME, changed=["new/f"]),
    ),
    "subtitles of the output": (
        POINTED,
        [handbrake(target="link", subtitles_options={"srt_file": ["f"]})],
        refused("link is also subtitles_options.srt_file"),
    ),
    "encode": (REAL, [ffmpeg("real/f.mkv", "alias/f.mkv", overwrite=True)], refused("output_file", "also sources[0]")),
    "encode, by a protocol": (
        "",
        [ffmpeg("file:clip.mkv", "clip.mkv", overwrite=True)],
        refused("output_file: clip.mkv is also a file of sources[0]"),
    ),
    "encode to a part of a list": (
        "printf \"ffconcat version 1.0\\nfile 'clip.mkv'\\n\" >l.ffconcat",
        [ffmpeg("l.ffconcat", "clip.mkv", overwrite=True)],
        refused("output_file: clip.mkv is also a file of sources[0]"),
    ),
    "mux to the file of the chapters": (
        "cp clip.mkv film.mkv",
        [mkvmerge("clip.mkv", target="film.mkv", options={"chapters": "film.mkv"})],
        refused("output_file: film.mkv is also a file that an option names"),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files(case: str, client: Client) -> None:
    """The only name of a file is never removed; of two names, one may be. What cannot be done is told before."""
    script, tasks, check = FILES[case]
    client.put("s.srt", "clip.mkv", "font.ttf")
    client.shell(script)

    check(client.run(*tasks))


def onto_itself(source: str, target: str) -> dict[str, tuple[list[Task], Check]]:
    """Tasks that would write one file over itself or delete it, and the refusals."""
    return {
        "copy and delete": ([cleanup(copy=[(source, target)], delete=[source])], refused(SAME)),
        "copy and delete in two tasks": ([cleanup(copy=[(source, target)]), cleanup(delete=[target])], refused(SAME)),
        "ffmpeg": ([ffmpeg(source, target, overwrite=True)], refused("also sources[0]")),
        "handbrake": ([handbrake(source, target)], refused("source")),
        "mkvmerge": ([mkvmerge(source, target=target)], refused("also sources[0]")),
        "mkvextract": ([mkvextract(source, target)], refused("source")),
    }


MOUNTED: dict[str, tuple[list[Task], Check]] = {
    "move": ([cleanup(move=[("b/f.mkv", "a/")])], stopped(SAME)),
    "move onto a mounted file": ([cleanup(move=[("a/g.mkv", "file")])], stopped()),
    **onto_itself("a/f.mkv", "b/f.mkv"),
}


@pytest.mark.parametrize("case", MOUNTED)
def test_bind_mount(case: str, client: Client) -> None:
    """Nothing is written over itself where a directory or file is mounted at two places."""
    tasks, check = MOUNTED[case]
    client.put("clip.mkv")
    client.shell("mkdir a b; cp clip.mkv a/f.mkv; cp clip.mkv a/g.mkv; : >file")
    with namespace(client, "mount --bind a b; mount --bind a/g.mkv file") as prefix:
        check(client.run(*tasks, prefix=prefix))


WITHOUT_CASE: dict[str, tuple[list[Task], Check]] = {
    "a directory's": ([cleanup(copy=[("d/f.mkv", "D/f.mkv")], delete=["d/f.mkv"])], refused(SAME)),
    # The name that is to be deleted is the moved file's.
    "move and delete": ([cleanup(move=[("d/f.mkv", "d/F.mkv")], delete=["d/f.mkv"])], refused("d/f.mkv")),
    **onto_itself("d/f.mkv", "d/F.MKV"),
}


@pytest.mark.parametrize("case", WITHOUT_CASE)
def test_file_system_without_case(case: str, client: Client) -> None:
    """Two names that differ only in case are one file there."""
    tasks, check = WITHOUT_CASE[case]
    client.put("clip.mkv")
    client.shell("mkdir d; cp clip.mkv d/f.mkv")
    with namespace(client, odd(".", "fold")) as prefix:
        check(client.run(*tasks, prefix=prefix))


def test_move_to_another_file_system(client: Client) -> None:
    """A move between file systems keeps the file's bytes, and takes no directory."""
    client.put("clip.mkv")
    client.shell("mkdir there dir; cp clip.mkv film.mkv; : >dir/f")
    with namespace(client, "mount -t tmpfs none there") as prefix:
        completes(changed=["film.mkv"])(client.run(cleanup(move=[("film.mkv", "there/new/")]), prefix=prefix))
        stopped("dir is a directory")(client.run(cleanup(move=[("dir", "there/")]), prefix=prefix))
        completes(changed=["back"])(client.run(cleanup(move=[("there/new/film.mkv", "back")]), prefix=prefix))

    assert (client.work / "back").read_bytes() == (client.work / "clip.mkv").read_bytes()


# --- attributes of what is replaced ---

READ, WRITE, NOBODY = 4, 2, 0xFFFFFFFF
ENTRIES = [(1, READ | WRITE, NOBODY), (2, READ, 1234), (4, READ, NOBODY), (16, READ, NOBODY), (32, 0, NOBODY)]
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ENTRIES)
"""An access control list: user 1234 may read, besides the owner's and the group's rights."""

REPLACING: dict[str, Task] = {
    "ffmpeg": ffmpeg(target="own.mkv", video=COPY, overwrite=True),
    "handbrake": handbrake(target="own.mkv"),
    "mkvmerge": mkvmerge(target="own.mkv"),
    "mkvextract a track": mkvextract(target="own.mkv"),
    "mkvextract an attachment": mkvextract("fonts.mkv", attachments=[{"id": 1, "filename": "own.mkv"}]),
    # The last step of nearly all jobs: the new file takes the old one's place, whose owner the farm's users are.
    "cleanup copy": cleanup(copy=[("clip.mkv", "own.mkv")]),
    "cleanup move": cleanup(move=[("clip.mkv", "own.mkv")]),
}


@pytest.mark.parametrize("case", REPLACING)
def test_attributes_stay(case: str, client: Client) -> None:
    """Each module keeps owner, group, mode, extended attributes and access control list of a file that it replaces."""
    target = client.work / "own.mkv"
    target.write_text("old")
    if os.geteuid() == 0:
        os.chown(target, 1000, 1001)
    os.chmod(target, 0o640)
    attributes = {"user.note": b"kept", "system.posix_acl_access": ACL}
    for name, value in attributes.items():
        os.setxattr(target, name, value)
    before = target.stat()

    result = client.run(REPLACING[case])

    assert result.completed, str(result)
    assert case == "ffmpeg" or "own.mkv was there already" in result.warnings
    assert target.read_bytes() != b"old"
    after = target.stat()
    assert (after.st_uid, after.st_gid, oct(after.st_mode)) == (before.st_uid, before.st_gid, oct(before.st_mode))
    assert {name: os.getxattr(target, name) for name in os.listxattr(target)} == attributes


@pytest.mark.parametrize("case", REPLACING)
def test_share_without_attributes(case: str, client: Client) -> None:
    """A share that takes no owners, modes or times gives a warning, not a failure."""
    client.put("clip.mkv", "fonts.mkv")
    client.shell("echo old >own.mkv; chmod 600 own.mkv")
    warned = [("times", "mode", "owner", "attributes")] if case == "cleanup copy" else []
    moved = ["clip.mkv"] if case == "cleanup move" else []
    with namespace(client, odd(".", "plain")) as prefix:
        completes(*warned, changed=["own.mkv", *moved])(client.run(REPLACING[case], prefix=prefix))


# --- what is done is not done again ---

END = ("slow", "end")
ROTATIONS: dict[str, tuple[Task, dict[str, str]]] = {
    "copies": (cleanup(copy=[("f", "f.bak"), ("new", "f"), END]), {"f.bak": "old", "f": "new", "new": "new"}),
    "stopped in the second": (cleanup(copy=[("f", "f.bak"), ("slow", "f")]), {"f.bak": "old", "f": "slow"}),
    "moves": (cleanup(move=[("f", "f.bak"), ("new", "f")], copy=[END]), {"f.bak": "old", "f": "new", "end": "slow"}),
    "a chain": (
        cleanup(move=[("f.2", "f.3"), ("f.1", "f.2"), ("f", "f.1")], copy=[("new", "f"), END]),
        {"f.3": "2", "f.2": "1", "f.1": "old", "f": "new", "end": "slow"},
    ),
    "a deletion": (cleanup(delete=["f"], move=[("new", "f")], copy=[END]), {"f": "new", "end": "slow"}),
}


@pytest.mark.parametrize("case", ROTATIONS)
def test_rotation_goes_on_where_it_was(case: str, client: Client, services: Services) -> None:
    """A rotation whose client is killed between two actions goes on with the first that was not done."""
    task, expected = ROTATIONS[case]
    client.shell("for n in new slow; do printf $n >$n; done; printf old >f; printf 1 >f.1; printf 2 >f.2; : >hanging")
    with namespace(client, odd(".", "hang=slow")) as prefix:
        worker = services.start_worker(prefix)
        job_id = services.post(job(task))
        until((client.work / "hangs").exists, "the slow copy")
        worker.kill()
        worker.wait()
        (client.work / "hanging").unlink()
        services.start_worker(prefix)
        result = services.verdict(job_id)

    assert result.completed, str(result)
    assert "taken for done by an earlier attempt" in result.warnings
    assert {name: (client.work / name).read_text() for name in expected} == expected


def test_the_unit_keeps_outputs() -> None:
    """The systemd unit has no private /tmp: systemd would delete outputs there when the unit stops."""
    unit = (Path(__file__).parents[2] / "scripts" / "systemd" / "sisyphus-client.service").read_text()

    assert not [line for line in unit.splitlines() if line.startswith("PrivateTmp=") and not line.endswith("=no")]
