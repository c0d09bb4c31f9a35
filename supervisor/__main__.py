"""The program's entry, `sisyphus-client` or `python -m supervisor`."""

import os
import sys


def main() -> None:
    """Run the command line. A machine that lacks what the program needs is one line and status 2, and no traceback."""
    try:
        _run()
    except MemoryError:
        problem = "not enough memory"
    except OSError as error:
        problem = error.strerror or str(error)
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        problem = "no thread can be started"
    else:
        return
    os.write(2, f"sisyphus-client cannot work here: {problem}\n".encode(errors="backslashreplace"))
    sys.stdout = None  # or what could not be written would be tried again, and be told again
    sys.exit(2)


def _run() -> None:
    # loguru reads LOGURU_LEVEL when it is imported, and fails at what is no level of its own, such as nothing.
    level = os.environ.pop("LOGURU_LEVEL", None)
    if level is not None:
        import loguru  # noqa: F401 - before a command does

        os.environ["LOGURU_LEVEL"] = level
    from supervisor.commands import cli

    cli.main()


if __name__ == "__main__":
    main()
