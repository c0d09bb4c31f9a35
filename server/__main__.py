"""One of several server processes: `server.processes` starts it."""

import os
import socket
import sys

import msgspec
from loguru import logger

from server.config import ServerSettings
from server.errors import ServerError
from server.main import serve_on


def main() -> None:
    """Serve on the descriptor and at the URL of the arguments, with the settings on standard input, until that ends."""
    logger.remove()
    form = "{time:YYYY-MM-DD HH:mm:ss.SSS} {level:<7} pid={process} {message}\n{exception}"
    logger.add(sys.stderr, level=os.environ.get("LOGURU_LEVEL") or "INFO", format=form, diagnose=False)
    settings = ServerSettings(**msgspec.json.decode(sys.stdin.buffer.readline()))
    try:
        # Not `sys.stdin`: a thread that still reads there is a fatal error when the interpreter ends.
        serve_on(settings, socket.socket(fileno=int(sys.argv[1])), sys.argv[2], lambda: os.read(0, 1))
    except ServerError as error:  # such as a database that is away just now: the parent tries again
        logger.error("{}", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
