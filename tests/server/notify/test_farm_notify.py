"""Word of events where one of several targets misbehaves."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.notify import sender
from tests.server.notify.test_notify import Hook, end_job
from tests.support.api_server import serving
from tests.support.waiting import until


@contextlib.contextmanager
def dripping() -> Iterator[tuple[str, list[socket.socket]]]:
    """A receiver whose answer comes byte by byte, without an end: its address, and its connections."""
    taken: list[socket.socket] = []
    stopped = threading.Event()

    def drip(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    taken.append(listener.accept()[0])
                    taken[-1].sendall(b"HTTP/1.1 200 OK\r\nX: ")
                for connection in taken:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"a")

    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(0.2)
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", taken
        finally:
            stopped.set()
            thread.join()
            for connection in taken:
                connection.close()


def test_farm_a_target_that_drips_is_not_in_the_way_of_others(
    database: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """Others are told, one connection at a time hangs, and the log says what the target does."""
    monkeypatch.setattr(sender, "MOST", 0.5)
    (tmp_path / "secret").write_text("pepper-4711\n")
    with dripping() as (address, connections), contextlib.closing(Hook()) as receiver:
        places = {"drips": f"http://{address}/pepper-4711", "takes": f"http://{receiver.address}"}
        targets = {name: {"webhook": url, "secret": f"file:{tmp_path}/secret"} for name, url in places.items()}
        with serving(database, notify={"every": "1s", "targets": targets}) as api:
            end_job(api, "bad")
            receiver.await_events(1)
            end_job(api, "worse")
            receiver.await_events(2)
            until(lambda: connections, "the hanging connection")
    log = "".join(logged)

    assert len(connections) == 1
    assert re.search("'drips' could not be told of . events?: no answer in 0.5 s; next try", log)
    assert "pepper-4711" not in log
