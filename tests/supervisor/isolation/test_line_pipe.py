"""What a task prints: bounded, and safe to show."""

import asyncio
import os
import random
import unicodedata

import pytest

from supervisor.isolation.line_pipe import LINES_BURST, LinePipe, printable


async def test_line_pipe_bounds_what_is_logged() -> None:
    """A flood of lines is cut and counted; the last lines are kept; control characters are shown, not obeyed."""
    emitted: list[str] = []
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    pipe = LinePipe(reader, emitted.append)
    flood = b"".join(b"%d\n" % n for n in range(100_000)) + b"\x1b[2Jend"
    await asyncio.to_thread(_write_and_close, writer, flood)
    await asyncio.sleep(0)
    pipe.close()

    assert emitted[:3] == ["0", "1", "2"]
    assert LINES_BURST <= len(emitted) < 2 * LINES_BURST
    assert "more lines were not logged" in "".join(emitted)
    assert pipe.last_lines()[-2:] == ("99999", "\\x1b[2Jend")


async def test_line_pipe_takes_any_bytes() -> None:
    """Random bytes in random pieces: no exception, lines of bearable length, bounded memory."""
    chance = random.Random(1)
    emitted: list[str] = []
    for _ in range(200):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        pipe = LinePipe(reader, emitted.append)
        for _ in range(chance.randrange(5)):
            os.write(writer, chance.choice([chance.randbytes(500), b"x" * 9000, b"\n" * 3000, b"\r\n\xff"]))
            pipe.drain()
            assert len(pipe._partial) <= 4096
        os.close(writer)
        pipe.close()

    assert all(len(line) <= 4 * 4096 for line in emitted)
    assert not [c for line in emitted for c in line if unicodedata.category(c) == "Cc" and c != "\t"]


def _write_and_close(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


@pytest.mark.parametrize(
    ("line", "shown"),
    [(b"a\r", "a"), (b"a\tb", "a\tb"), (b"\xff\x00\x9b", "\\xff\\x00\\x9b"), ("ä\x9b".encode(), "ä\\x9b")],
)
def test_printable(line: bytes, shown: str) -> None:
    """A line of a task is text that is safe to print."""
    assert printable(line) == shown
