"""Whole jobs with real encodes, through the console script."""

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.media import encode, look, make_clip
from tests.support.supervised import TOOLS, Supervised, job
from tests.support.waiting import until

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def demo_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of picture and sound."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv", seconds=5)


@pytest.fixture
def clip(tmp_path: Path, demo_clip: Path) -> Path:
    """The clip, where the example expects it."""
    (tmp_path / "demo").mkdir()
    return Path(shutil.copy(demo_clip, tmp_path / "demo" / "clip.mkv"))


def whole(clip: Path, reading: dict[str, Any] | None = None) -> dict[str, Any]:
    """A job that encodes the clip to demo/out.ts."""
    return job(encode(clip, "demo/out.ts", reading, codec="mpeg2video", q=1), job_id="fixed")


def endless(clip: Path) -> dict[str, Any]:
    """A job whose encode goes on in real time for as long as it is let."""
    return whole(clip, {"re": True, "stream_loop": -1})


def encoder_below(client: "subprocess.Popen[str]", demo: Path) -> psutil.Process:
    """The ffmpeg of a client's job, once it has written something in `demo`."""

    def find() -> psutil.Process | None:
        written = [file for file in demo.glob(".out.*.sisyphus-part.ts") if file.stat().st_size]
        if not written:
            return None  # what is alive now looks into the source, and may end at any moment
        processes = [p for p in psutil.Process(client.pid).children(recursive=True) if p.name() == "ffmpeg"]
        return processes[0] if processes else None

    found: psutil.Process = until(find, "the encode to be under way")
    return found


def test_example(supervised: Supervised, clip: Path) -> None:
    """The example of the README: H.264 and AAC, moved to where the second task says, and nothing else left."""
    done = supervised.run((EXAMPLES / "encode.json").read_text())
    output = clip.parent / "done" / "clip.mp4"
    probed = look(output)

    assert done.returncode == 0, done.stderr
    assert [stream["codec_name"] for stream in probed["streams"]] == ["h264", "aac"]
    assert abs(float(probed["format"]["duration"]) - 5) < 0.2
    assert f"Output: {output}" in done.stdout
    assert sorted(os.listdir(clip.parent)) == ["clip.mkv", "done"]


def test_chain(supervised: Supervised, clip: Path, tmp_path: Path) -> None:
    """The other example: encoded, muxed with subtitles and chapters, those taken out again, all of it moved."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    supervised.configure(modules=TOOLS)
    chain = (EXAMPLES / "chain.json").read_text()

    plan = supervised.run(chain, "--dry-run")
    record = supervised.record(chain)
    found = look(clip.parent / "done" / "clip.mkv")

    assert plan.returncode == 0, plan.stderr
    assert record["completed"], record
    assert [task["result"] for task in record["tasks"]] == ["completed"] * 4
    assert [stream["codec_name"] for stream in found["streams"]] == ["h264", "aac", "subrip"]
    assert found["format"]["tags"]["title"] == "A clip"
    assert "and a tone of 440 Hz." in (clip.parent / "done" / "english.srt").read_text()
    assert "<ChapterString>End</ChapterString>" in (clip.parent / "done" / "chapters.xml").read_text()
    assert sorted(os.listdir(clip.parent)) == ["clip.mkv", "done"]
    assert sorted(os.listdir(clip.parent / "done")) == ["chapters.xml", "clip.mkv", "english.srt"]


def test_chain_is_cut(supervised: Supervised, clip: Path, tmp_path: Path) -> None:
    """A task that fails in the middle ends the chain; what the ones before it wrote stays whole."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    (tmp_path / "examples" / "chapters.txt").write_text("no chapters")
    supervised.configure(modules=TOOLS)

    record = supervised.record((EXAMPLES / "chain.json").read_text())

    assert [task["result"] for task in record["tasks"]] == ["completed", "failed", "not run", "not run"]
    assert record["error"]["exit_status"] == 2
    assert "mkvmerge exited with status 2" in record["message"]
    assert sorted(os.listdir(clip.parent)) == ["clip.mkv", "encoded.mp4"]


def test_what_dry_run_prints_is_run_and_leaves_nothing_when_interrupted(supervised: Supervised, clip: Path) -> None:
    """The command line of --dry-run is the one that run starts, to the letter; an interrupted encode is no success."""
    document = endless(clip)

    plan = supervised.run(document, "--dry-run")
    client = supervised.start(document)
    started = encoder_below(client, clip.parent).cmdline()
    client.send_signal(signal.SIGINT)
    client.communicate()

    assert plan.returncode == 0
    assert shlex.split(plan.stdout.splitlines()[0]) == started
    assert client.returncode == 130
    assert os.listdir(clip.parent) == ["clip.mkv"]


@pytest.mark.parametrize("victim", ["supervisor", "zygote"])
def test_lost_parent_leaves_no_output(supervised: Supervised, clip: Path, victim: str) -> None:
    """An encode whose supervisor or zygote is killed leaves nothing under its final name; a second run replaces it."""
    client = supervised.start(endless(clip))
    encoder_below(client, clip.parent)
    (zygote,) = psutil.Process(client.pid).children()

    os.kill(client.pid if victim == "supervisor" else zygote.pid, signal.SIGKILL)
    if victim == "zygote":
        client.send_signal(signal.SIGINT)  # the task would begin again
    client.communicate()

    assert not (clip.parent / "out.ts").exists()
    again = supervised.run(whole(clip))
    assert again.returncode == 0, again.stderr
    assert sorted(os.listdir(clip.parent)) == ["clip.mkv", "out.ts"]


def test_full_disk_is_explained(supervised: Supervised, clip: Path) -> None:
    """Where the output cannot grow any more, the error says so first, and there is no file."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))

    supervised.configure({"max_attempts": 1})
    done = supervised.run(whole(clip), "--json", preexec_fn=limit)
    error = json.loads(done.stdout)["error"]

    assert error["message"].startswith("demo/out.ts: cannot be written: File too large; ffmpeg was killed by SIGXFSZ")
    assert os.listdir(clip.parent) == ["clip.mkv"]


def test_two_passes(supervised: Supervised, clip: Path) -> None:
    """The first of two passes writes to /dev/null, which stays a device; the second uses its notes."""
    before = os.stat(os.devnull)

    options = {"b": "200k", "passlogfile": "notes"}
    first = encode(clip, "/dev/null", **options, **{"pass": 1, "f": "null"})
    done = supervised.run(job(first, encode(clip, "demo/out.mkv", **options, **{"pass": 2})))

    assert done.returncode == 0, done.stderr
    assert os.stat(os.devnull).st_rdev == before.st_rdev
    assert (clip.parent / "out.mkv").exists()
    assert "Output: /dev/null" not in done.stdout
