"""The limits `roots` and `network`: tasks have the operator's directories, what tools need to run, and no more."""

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipc import landlock
from tests.attacks import MPTCP, SOCKET, SOCKETCALL
from tests.cases.tasks import cleanup, handbrake, mkvextract, mkvmerge
from tests.support.client import Client
from tests.support.farm import Farm
from tests.support.films import SUBTITLES, make_film
from tests.support.lacking import launcher
from tests.support.media import encode, look, make_clip
from tests.support.supervised import BENIGN, TOOLS, Supervised, hostile, job

pytestmark = pytest.mark.skipif(landlock.abi() < landlock.FILES_ABI, reason="takes Linux 6.2")

EXPLORER = {"explorer": "tests.attacks.Explorer"}

NETWORK: list[list[Any]] = [["listen"], ["listen", False], ["listen", True, MPTCP], ["set up a ring"]]
if os.uname().machine == "x86_64":
    NETWORK += [["make a socket by the 32-bit call", number] for number in (SOCKET, SOCKETCALL)]


class Places:
    """Two roots, `source` and `target`, and a directory that is in none, each with a file `a`."""

    def __init__(self, directory: Path) -> None:
        self.source, self.target, self.outside = (directory / name for name in ("source", "target", "outside"))
        for place in (self.source, self.target, self.outside):
            place.mkdir()
            (place / "a").write_text("eggs")
        self.roots = [str(self.source), str(self.target)]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@contextlib.contextmanager
def listening() -> Iterator[int]:
    """A port of this machine that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def outcomes(supervised: Supervised, places: Places, tries: list[list[Any]]) -> dict[str, str]:
    """What became of each of `tries`, in a module: nothing, or the error's name."""
    out = places.target / "found.json"
    record = supervised.record(job(("explorer", {"tries": tries, "out": str(out)})))
    assert record["completed"], record
    return {" ".join(map(str, one)): found for one, found in zip(tries, json.loads(out.read_text()), strict=True)}


# --- what tasks have ---


@pytest.mark.slow
def test_bundled_modules_work_within_roots(supervised: Supervised, places: Places) -> None:
    """Each of them does its work with files of two roots: with fonts, two passes, and from one root to the other."""
    supervised.configure({"roots": places.roots}, TOOLS)
    source, target = places.source, places.target
    film = make_film(source)
    (source / "words.srt").write_text(SUBTITLES)

    fast: dict[str, Any] = {"preset": "ultrafast", "b": "200k"}  # the log of two passes is in the job's own directory
    jobs = job(
        encode(film, target / "subtitled.mkv", **fast, vf=f"subtitles={source}/words.srt,drawtext=text=spam"),
        encode(film, "/dev/null", **fast, **{"pass": 1, "f": "null"}),
        encode(film, target / "passed.mkv", **fast, **{"pass": 2}),
        handbrake(str(film), str(target / "braked.mkv"), video_options={"vb": 200, "two_pass": True, "quality": False}),
        mkvmerge(
            *(str(film), str(source / "words.srt")),
            target=str(source / "muxed.mkv"),
            attachments=[{"filename": str(source / "font.ttf"), "mime_type": "font/ttf"}],
        ),
        mkvextract(
            str(source / "muxed.mkv"),
            tracks=[{"id": 1, "filename": str(target / "words.srt")}],
            attachments=[{"id": 1, "filename": str(target / "font.ttf")}],
        ),
        cleanup(
            move=[(str(source / "muxed.mkv"), f"{target}/made/")],
            copy=[(str(source / "words.srt"), f"{target}/made/")],
            delete=[str(source / "a")],
        ),
    )

    record = supervised.record(jobs)

    assert record["completed"], record
    assert [task["result"] for task in record["tasks"]] == ["completed"] * 7
    for name in ("subtitled.mkv", "passed.mkv", "braked.mkv", "made/muxed.mkv"):
        assert look(target / name)["streams"][0]["codec_name"] == "h264"
    assert "Hello" in (target / "words.srt").read_text()
    assert not (source / "a").exists()


def test_tasks_have_what_they_need(supervised: Supervised, places: Places) -> None:
    """Files of the roots and links among them, tools, temporary files, shared locks."""
    supervised.configure({"roots": places.roots}, EXPLORER)
    (places.target / "link").symlink_to(places.source / "a")
    inode = (places.source / "a").stat().st_ino

    found = outcomes(
        supervised,
        places,
        [
            ["read", f"{places.source}/a"],
            ["write", f"{places.source}/a"],
            ["read", f"{places.target}/link"],
            ["list", str(places.source)],
            ["mkdir", f"{places.target}/new"],
            ["link", f"{places.source}/a", f"{places.target}/linked"],
            ["rename", f"{places.source}/a", f"{places.target}/new/moved"],
            ["truncate", f"{places.target}/new/moved"],
            ["unlink", f"{places.target}/a"],
            ["run", "cat", f"{places.target}/linked", "/etc/localtime"],
            ["run", sys.executable, "-c", "import ssl, subprocess"],
            ["run", "sh", "-c", "echo spam > /dev/null"],
            ["write a temporary file"],
            ["use a pool"],
        ],
    )

    assert [what for what, error in found.items() if error] == []
    assert (places.target / "new" / "moved").stat().st_ino == inode


def test_tasks_have_nothing_else(supervised: Supervised, places: Places, tmp_path: Path) -> None:
    """No file outside of the roots is read, listed, written, cut or moved, not through a link or by a tool either; the
    client's own state is out of reach; there is no network."""
    supervised.configure({"roots": places.roots}, EXPLORER)
    outside = places.outside
    (places.source / "link").symlink_to(outside / "a")
    (outside / "program").symlink_to("/bin/true")
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o755)

    with listening() as port:
        found = outcomes(
            supervised,
            places,
            [
                ["read", f"{outside}/a"],
                ["read", "/etc/shadow"],
                ["read", f"{places.source}/link"],
                ["read", f"{places.source}/../outside/a"],
                ["read", f"{tmp_path}/state/host_uuid"],
                ["list", str(outside)],
                ["list", "/"],
                ["write", f"{outside}/a"],
                ["write", f"{outside}/new"],
                ["write", f"{places.source}/link"],
                ["write", "/usr/bin/spam"],
                ["write", "/proc/self/oom_score_adj"],
                ["truncate", f"{outside}/a"],
                ["mkdir", f"{outside}/made"],
                ["unlink", f"{outside}/a"],
                ["symlink", "/etc", f"{outside}/etc"],
                ["rename", f"{outside}/a", f"{places.source}/b"],
                ["rename", f"{places.source}/a", f"{outside}/b"],
                ["link", f"{outside}/a", f"{places.source}/b"],
                ["run", "cat", f"{outside}/a"],
                ["run", "sh", "-c", f"echo spam > {outside}/a"],
                ["run", f"{tmp_path}/program"],
                *NETWORK,
                ["connect", port],
                ["connect fast", port],
                ["connect by", MPTCP, port],
                ["send a datagram", port],
            ],
        )

    # A link to a file that is out of reach needs rights that its new place would add: EXDEV tells programs to copy.
    assert [what for what, error in found.items() if error not in ("EACCES", "EXDEV", "status")] == []
    assert (outside / "a").read_text() == "eggs"


@pytest.mark.parametrize("is_in_root", [False, True])
def test_no_task_tells_another_what_tools_say(
    is_in_root: bool, supervised: Supervised, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks read what is kept of tools. It is written before a task counts; within a root, nothing is kept."""
    home = places.source if is_in_root else tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    supervised.configure({"roots": places.roots}, EXPLORER | {"mkvmerge": "modules.mkvmerge.Mkvmerge"})
    supervised.record(job(("ffmpeg", {}), ("mkvmerge", {})))
    kept = [*(home / "cache" / "sisyphus-client").iterdir()]

    assert sorted(file.name.partition("-")[0] for file in kept) == (
        [] if is_in_root else ["ffmpeg", "ffmpeg", "mkvmerge"]
    )

    tries = [[verb, str(file)] for file in kept for verb in ("read", "write", "truncate", "unlink")]
    found = outcomes(supervised, places, [*tries, ["write", str(home / "cache" / "sisyphus-client" / "new")]])
    assert [*found.values()] == ["", *["EACCES"] * 3] * len(kept) + ["" if is_in_root else "EACCES"]


def test_network_is_a_limit_of_its_own(supervised: Supervised, places: Places) -> None:
    """With `network = true` there is one beside roots, and with `network = false` there is none without them."""
    with listening() as port:
        tries: list[list[Any]] = [["connect", port], ["read", f"{places.outside}/a"], ["make a Unix socket"]]
        supervised.configure({"roots": places.roots, "network": True}, EXPLORER)
        with_roots = list(outcomes(supervised, places, tries).values())
        supervised.configure({"network": False}, EXPLORER)
        without_roots = list(outcomes(supervised, places, tries).values())

    assert with_roots == ["", "EACCES", ""]
    assert without_roots == ["EACCES", "", ""]


def test_roots_of_one_module(supervised: Supervised, places: Places) -> None:
    """A module's own roots replace those of all, and `"off"` takes them away."""
    tries: list[list[Any]] = [["read", f"{place}/a"] for place in (places.source, places.outside)]
    supervised.configure({"roots": [str(places.source)]}, EXPLORER)
    out = str(places.target / "out")
    for own, expected in (([str(places.outside), str(places.target)], ["EACCES", ""]), ("off", ["", ""])):
        supervised.configure({"roots": [str(places.source)], "explorer": {"roots": own}}, EXPLORER)
        supervised.record(job(("explorer", {"tries": tries, "out": out})))

        assert json.loads(Path(out).read_text()) == expected


def test_links_inside_of_roots_lead_nowhere(
    supervised: Supervised, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that a task puts into a root, in the place of the client's cache or of modules, gives the next no more."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(places.source))
    cache, modules = places.source / "sisyphus-client", places.source / "modules"
    modules.mkdir()
    supervised.configure({"roots": places.roots}, EXPLORER, paths=(str(modules),))
    reading = ["read", f"{places.outside}/a"]
    links = [["replace by a link", str(place), str(places.outside)] for place in (cache, modules)]

    assert [*outcomes(supervised, places, [["mkdir", str(cache)], *links, reading]).values()][1:] == ["", "", "EACCES"]
    assert [*outcomes(supervised, places, [reading]).values()] == ["EACCES"]


def test_a_root_is_looked_up_once(
    farm: Farm, client: Client, supervised: Supervised, places: Places, tmp_path: Path
) -> None:
    """A root may be a link; one that a task puts in the place of another module's root leads nowhere."""
    (link := tmp_path / "link").symlink_to(places.source)
    (inner := places.source / "inner").mkdir()
    own = {"roots": [str(inner), str(places.target)]}
    supervised.configure(
        {"roots": [str(link), str(places.target)], "inner": own}, EXPLORER | {"inner": EXPLORER["explorer"]}
    )
    client.start()

    def explore(module: str, *tries: list[str]) -> list[str]:
        document = job((module, {"tries": tries, "out": str(places.target / "out")}))
        assert not farm.await_verdict(farm.post(document)).failed
        found: list[str] = json.loads((places.target / "out").read_text())
        return found

    through_link = explore("explorer", ["read", f"{link}/a"], ["replace by a link", str(inner), str(places.outside)])
    outside = explore("inner", ["read", f"{places.outside}/a"], ["read", f"{places.source}/a"])

    assert through_link == ["", ""]
    assert outside == ["EACCES", "EACCES"]


# --- what is said ---


def test_jobs_that_name_files_outside_are_refused(supervised: Supervised, places: Places) -> None:
    """Validation tells each path that is outside, or leads there, and the roots; nothing of the job runs."""
    supervised.configure({"roots": places.roots}, TOOLS)
    outside, source, target = places.outside, places.source, places.target
    clip = make_clip(outside / "clip.mkv", seconds=1)
    (source / "link.mkv").symlink_to(clip)

    tasks = [
        encode(source / "link.mkv", target / "out.mkv"),
        encode(clip, outside / "out.mkv"),
        handbrake(str(clip), str(outside / "b.mkv")),
        mkvmerge(str(clip), target=str(target / "m.mkv"), attachment_directories=[str(outside)]),
        mkvextract(str(clip), str(outside / "v")),
        cleanup(
            copy=[(str(outside / "a"), str(target))],
            move=[(str(source / "a"), str(outside))],
            delete=[str(outside / "a"), str(source / "link.mkv")],
        ),
        ("benign", {"make": str(outside / "new")}),
    ]

    done = supervised.command("validate", str(supervised.write_job(job(*tasks))))
    told = [line.strip() for line in done.stdout.splitlines()]

    assert done.returncode == 1
    why = f"is outside of the limit roots ({source}, {target})"
    assert told == [
        "0:ffmpeg: 1 problem",
        f"sources[0]: {source}/link.mkv: {why}",
        "1:ffmpeg: 2 problems",
        f"sources[0]: {clip}: {why}",
        f"output_file: {outside}/out.mkv: {why}",
        "2:handbrake: 2 problems",
        f"source: {clip}: {why}",
        f"output_file: {outside}/b.mkv: {why}",
        "3:mkvmerge: 2 problems",
        f"sources[0].filename: {clip}: {why}",
        f"attachment_directories[0]: {outside}: {why}",
        "4:mkvextract: 2 problems",
        f"source: {clip}: {why}",
        f"tracks[0]: {outside}/v: {why}",
        "5:cleanup: 3 problems",
        f"copy[0].source: {outside}/a: {why}",
        f"move[0].destination: {outside}/a: {why}",
        f"delete[0]: {outside}/a: {why}",
        "6:benign: 1 problem",
        f"{outside}/new: {why}",
    ]
    assert not (outside / "new").exists()


def test_a_run_that_wanted_more_says_so(supervised: Supervised, places: Places) -> None:
    """The error of a tool that was denied a file, or the network, tells which, and which limit forbids it."""
    supervised.configure({"roots": places.roots})
    name = f"{places.outside}/a"

    denied = supervised.record(hostile("run_tool", argv=["cat", name]))["message"]
    cut_off = supervised.record(hostile("run_tool", argv=["ffmpeg", "-i", "http://127.0.0.1:9/"]))["message"]

    assert denied.endswith(f"; {name} is outside of the limit roots ({places.source}, {places.target})")
    assert cut_off.endswith("; the limit network forbids it")


def test_limits_in_force_are_shown(supervised: Supervised) -> None:
    """`config` and `modules` show the roots and whether there is a network."""
    supervised.configure({"roots": ["/usr", "/var/tmp"]})
    config, modules = (supervised.command(word).stdout for word in ("config", "modules"))

    assert "roots             /usr,/var/tmp  (configuration file)" in config
    assert "network           false  (default)" in config
    assert "roots /usr,/var/tmp" in modules
    assert "network false" in modules


@pytest.mark.parametrize(
    ("limits", "limit", "lacking"),
    [
        ({"roots": True}, "roots takes Landlock", "landlock"),
        ({"roots": True}, "roots, without network = true, takes seccomp", "seccomp"),
        ({"network": False}, "network = false takes seccomp", "seccomp"),
    ],
)
def test_a_kernel_that_is_too_old_is_refused(
    supervised: Supervised, places: Places, limits: dict[str, Any], limit: str, lacking: str
) -> None:
    """Where the kernel cannot hold it, the client does not start, and says why in one line."""
    supervised.configure(limits | ({"roots": places.roots} if "roots" in limits else {}))
    supervised.launcher = launcher(lacking)

    done = supervised.run(BENIGN)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"tool.client.limits.{limit}" in done.stderr
