"""Stands between a server and its database, and hangs or is away: as a PostgreSQL that is stopped, or fails over."""

import contextlib
import selectors
import socket
import threading


class Relay:
    """Passes connections on to a port of this machine, and what comes through them."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = int(self._listener.getsockname()[1])
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._passing, self._refusing, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._breaking = threading.Event()
        self._passing.set()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Relay":
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.go_on()
        self._thread.join()
        for each in (*self._peers, self._listener, self._selector):
            each.close()

    def hang(self) -> None:
        """Pass nothing on, but keep all connections."""
        self._passing.clear()

    def go_on(self) -> None:
        """Pass on again, also what came meanwhile."""
        self._passing.set()

    def refuse(self) -> None:
        """Break all connections, also new ones."""
        self._refusing.set()

    def accept(self) -> None:
        """Take connections again."""
        self._breaking.set()
        self._refusing.clear()

    def switch(self, target: int) -> None:
        """Break all connections, and lead new ones to another port, as after a failover."""
        self.refuse()
        self._target = target
        self.accept()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._passing.wait()
            if self._refusing.is_set() or self._breaking.is_set():
                self._breaking.clear()
                for one in list(self._peers):
                    self._drop(one)
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._connect()
                elif isinstance(key.fileobj, socket.socket):
                    self._pass_on(key.fileobj)

    def _connect(self) -> None:
        ours, _ = self._listener.accept()
        theirs = None
        if not self._refusing.is_set():
            with contextlib.suppress(OSError):
                theirs = socket.create_connection(("127.0.0.1", self._target))
        if theirs is None:
            ours.close()
            return
        for one, other in ((ours, theirs), (theirs, ours)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        data = b""
        if one in self._peers:
            with contextlib.suppress(OSError):
                data = one.recv(1 << 16)
                self._peers[one].sendall(data)
            if not data:
                self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        if other := self._peers.pop(one, None):
            self._peers.pop(other, None)
            for each in (one, other):
                self._selector.unregister(each)
                each.close()
