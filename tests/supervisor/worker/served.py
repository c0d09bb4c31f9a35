"""A client of the embedded server, and what an operator orders there."""

import contextlib
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tests.support.api_server import Api
from tests.support.client import WORKER, Client, Held
from tests.support.supervised import BENIGN
from tests.support.waiting import until

END = re.compile(rb"\r\n\r\n")


class Served:
    """A client, not yet started, and its server, the embedded one. Polls and beats are as rare as by default."""

    def __init__(self, client: Client, api: Api) -> None:
        self.client = client
        self.api = api
        client.settings |= {"API_URL": api.url, "QUEUE_POLL_INTERVAL": "60", "NETWORK_RETRY_INTERVAL": "60"}

    def submit(self, document: dict[str, Any] = BENIGN, **more: Any) -> str:
        """Submit a job; returns its id."""
        answer = self.api("POST", "/queue", document | more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def hold(self, directory: Path, name: str = "held", **more: Any) -> tuple[Held, str]:
        """Submit a job that runs until it is let go, and wait until it runs; returns it and its id."""
        held = Held(directory, name)
        job_id = self.submit(held.job, **more)
        held.await_running()
        return held, job_id

    def order(self, worker: str = WORKER, **attributes: bool) -> None:
        """Disable, enable, pause or resume a worker."""
        assert self.api.status("PATCH", f"/workers/{worker}", attributes) == 200

    def record(self, job_id: str) -> dict[str, Any]:
        """Everything of a job."""
        record: dict[str, Any] = self.api("GET", f"/jobs/{job_id}/record").json()
        return record

    def await_state(self, job_id: str, state: str) -> dict[str, Any]:
        """Wait until a job is in a state; returns everything of it."""
        return until(lambda: (record := self.record(job_id))["state"] == state and record, f"{job_id} {state}", 60)

    def idle_workers(self) -> int:
        """How many workers wait for a job."""
        return [each["status"] for each in self.api("GET", "/workers").json()["workers"]].count("idle")

    def await_beat(self, worker: str = WORKER, **info: Any) -> dict[str, Any]:
        """Wait for a heartbeat with this in its `info`."""

        def find() -> Any:
            beat = self.api("GET", f"/workers/{worker}").json()
            return (
                info.items() <= beat.get("info", {}).items() and beat.get("status") in ("idle", "in_progress") and beat
            )

        beat: dict[str, Any] = until(find, f"a heartbeat with {info}")
        return beat


class CuttingProxy:
    """Stands before a server, and closes each connection whose request is not answered within `patience` seconds."""

    def __init__(self, url: str, patience: float) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._patience = patience
        self.polls: list[float] = []
        """When polls came, on the monotonic clock."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Pass one request on, and its answer back; then close, as the client is told to expect."""
        with connection, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            request = b""
            while not (end := END.search(request)):
                if not (data := connection.recv(1 << 16)):
                    return
                request += data
            if request.startswith(b"GET /queue/poll"):
                self.polls.append(time.monotonic())
            length = re.search(rb"(?i)content-length: (\d+)", request)
            while length and len(request) < end.end() + int(length[1]):
                request += connection.recv(1 << 16)
            server.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
            server.settimeout(self._patience)
            while data := server.recv(1 << 16):
                connection.sendall(data)
