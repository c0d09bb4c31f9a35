"""Tiny clips for the tests, made with ffmpeg's own signal generators."""

import fcntl
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """What the tests raise in place of the task process's own request to stop."""


def make_clip(path: Path, *, seconds: float = 2, audio: bool = True, options: tuple[str, ...] = ()) -> Path:
    """A clip of 320x180 at 25 frames a second, with a tone unless `audio` is false."""
    sound = ["-f", "lavfi", "-i", f"sine=duration={seconds}:sample_rate=48000"] if audio else []
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y"]
    argv += ["-f", "lavfi", "-i", f"testsrc=size=320x180:rate=25:duration={seconds}", *sound]
    argv += ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p"]
    argv += ["-c:a", "aac", "-map", "0:v", *(["-map", "1:a"] if audio else []), *options]
    subprocess.run([*argv, str(path)], check=True)
    return path


def encode(
    source: object, target: object, reading: dict[str, Any] | None = None, **options: Any
) -> tuple[str, dict[str, Any]]:
    """An ffmpeg task that encodes a source's video with these options; `reading` has options of the source."""
    data = {
        "sources": [{"filename": str(source), "options": reading} if reading else str(source)],
        "source_maps": [{"source": 0, "specifier": "v"}],
        "output_maps": [{"specifier": "v", "stream": 0, "options": {"codec": "libx264", **options}}],
        "output_file": str(target),
    }
    return "ffmpeg", data


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Have `place` to oneself among the processes of a test session."""
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """A directory that `make` fills, unless another process of the test session has."""
    with alone(place):
        if not place.exists():
            new = place.with_name(f"{place.name}.new")
            new.mkdir(exist_ok=True)
            make(new)
            new.rename(place)
    return place


def look(path: Path, *options: str) -> dict[str, Any]:
    """What ffprobe says of a file."""
    argv = ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", *options, "-i", f"file:{path}"]
    done = subprocess.run(argv, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def terminated_when(condition: str) -> Iterator[None]:
    """Send this process SIGTERM, whose handler raises `Interrupted`, once the shell's `condition` holds."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGTERM, interrupt)
    script = f"until {condition}; do sleep 0.02; done; kill -TERM $PPID"
    helper = subprocess.Popen(["sh", "-c", script])
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        helper.kill()
        helper.wait()
