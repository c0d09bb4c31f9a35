"""The program's entry, `sisyphus-client` or `python -m supervisor`."""

import os


def main() -> None:
    """Run the command line."""
    # loguru reads LOGURU_LEVEL when it is imported, and fails at what is no level of its own, such as nothing.
    level = os.environ.pop("LOGURU_LEVEL", None)
    from supervisor.commands import cli

    if level is not None:
        os.environ["LOGURU_LEVEL"] = level
    cli.main()


if __name__ == "__main__":
    main()
