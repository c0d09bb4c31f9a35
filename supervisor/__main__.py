"""The program's entry: `sisyphus-client`, `python -m sisyphus_client` or `python -m supervisor`.

An older Python must be able to read this file and to run it up to the line that says so.
"""

import contextlib
import gc
import io
import os
import sys


def main() -> None:
    """Run the command line. A machine that lacks what the program needs is one line and status 2, and no traceback.

    Ctrl-C while all is imported ends it as later.
    """
    try:
        _check_platform()
        if os.getpid() == 1:
            from supervisor import pid1

            pid1.fork_program()
        _run()
    except MemoryError:
        problem = "not enough memory"
    except ImportError as error:  # elsewhere, pip may have found no build of a package
        problem = f"a package that it needs cannot be imported: {error}"
    except OSError as error:
        problem = str(error) if error.filename else error.strerror or str(error)
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        problem = "no thread can be started"
    except KeyboardInterrupt:
        os.write(2, b"\n")
        sys.exit(130)
    else:
        return
    with contextlib.suppress(OSError):  # nobody reading is no reason for another status
        os.write(2, f"sisyphus-client cannot work here: {problem}\n".encode(errors="backslashreplace"))
    # Or what could not be written would be tried again, told again, and change the status to 120.
    sys.stdout = sys.stderr = None
    sys.exit(2)


def _check_platform() -> None:
    if sys.platform != "linux":
        raise OSError(f"it needs Linux, and this is {sys.platform}")
    if sys.version_info < (3, 11):  # noqa: UP036 - pip holds this, and a checkout does not
        raise OSError(f"it needs Python 3.11 or newer, and this is {sys.version.split()[0]}")


def _run() -> None:
    _open_standard_streams()
    if sys.argv[1:] == ["--version"]:
        from app import VERSION

        print(f"sisyphus-client, version {VERSION}", flush=True)  # noqa: T201 - click would take 30 ms to import
        return
    from supervisor import launch

    command = "" if {"-h", "--help"} & set(sys.argv) else "".join(sys.argv[1:2])
    if command in launch.COMMANDS:
        if command != "start":  # a worker lives long: it spares 0.4 MB, and not 20 ms
            gc.disable()  # until all is imported and the event loop runs: little of that is garbage
        launch.launch_early()
    if command in launch.COMMANDS or "LOGURU_LEVEL" in os.environ:
        _import_loguru(with_tls=command == "start")
    from supervisor.commands import cli

    cli.main()


def _import_loguru(with_tls: bool) -> None:
    """Import it, asyncio with it, and msgspec, without what they read and set up in vain.

    loguru fails at a LOGURU_LEVEL that is no level of its own, such as nothing; its first handler costs 8 ms.
    """
    from ipc.lean import unneeded_tls, without

    kept = {name: os.environ.pop(name) for name in ("LOGURU_LEVEL", "LOGURU_AUTOINIT") if name in os.environ}
    os.environ["LOGURU_AUTOINIT"] = "0"
    with without(*(unneeded_tls() if with_tls else ["ssl"])):
        import loguru  # noqa: F401 - before a command does
    with without("typing_extensions"):  # 5 ms, in vain from Python 3.11 on
        import msgspec  # noqa: F401
    del os.environ["LOGURU_AUTOINIT"]
    os.environ |= kept


def _open_standard_streams() -> None:
    """Open standard streams that the caller has closed: else a pipe or socket of ours would become standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # open takes the lowest free number: this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path that the locale cannot show must not fail


if __name__ == "__main__":
    main()
